"""What a seed runs against: a Redis with its data on disk, two relays, nginx as docs/deploy has it, and the simulator.

Each is a process of its own, in a session of its own, with its output in a file.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diagnostics.proof.subjects.processes import free_port
from tests.nginx import configuration

__all__ = ["MOMENT", "REPLICA", "Cluster", "Process", "Redis", "start_redis"]

ROOT = Path(__file__).parents[2]
# The header by which nginx says who answered: HOST:PORT of each relay that it asked, the last one answered.
REPLICA = "x-replica"
# And when, in seconds since 1970: the clients' process may come to read it much later.
MOMENT = "x-moment"
START_SECONDS = 120.0
SETTINGS = {
    "RELAY_RESUME": "redis",
    # Longer than any stream here: a relay that is told to end loses none.
    "RELAY_DRAIN_SECONDS": "120",
    # Longer than a client tries (clients.PATIENCE_SECONDS): one that the machine keeps from coming back still gets the rest.
    "RELAY_RESUME_GRACE_SECONDS": "600",
    "RELAY_RESUME_SECONDS": "600",
    "RELAY_TRUSTED_PROXIES": "127.0.0.1",
}
FOREIGN = ("RELAY_", "DIAGNOSTICS_", "OTEL_", "OPENAI_")


class Process:
    """A process, and its output."""

    def __init__(self, folder: Path, name: str, *command: str | Path, **environment: str) -> None:
        self.log = folder / f"{name}.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        with open(self.log, "ab") as output:
            self._from = output.tell()
            self.popen = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env={**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has written, without what was written before by others of its name."""
        return self.log.read_bytes()[self._from :].decode(errors="replace")

    def wait_for(self, text: str) -> str:
        """The first whole line with this text in it."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.popen.poll() is None:
            for line in self.output.splitlines(keepends=True):
                if text in line and line.endswith("\n"):
                    return line.strip()
            time.sleep(0.02)
        raise TimeoutError(f"{text!r} is not in the output of {self.popen.args!r}: {self.output[-3000:]}")

    def end(self, number: int = signal.SIGKILL, seconds: float = 180.0) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        if self.popen.poll() is None:
            self._send(number)
        try:
            return self.popen.wait(seconds)
        finally:
            if self.popen.poll() is None:
                self._send(signal.SIGKILL)
                self.popen.wait()

    def _send(self, number: int) -> None:
        if number == signal.SIGKILL:
            os.killpg(self.popen.pid, number)  # it cannot end its children any more: nginx's worker would go on
        else:
            self.popen.send_signal(number)


class Redis:
    """One Redis, with its data on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._starting = threading.Lock()
        self._ended = False
        self._process = self._start()

    def restart(self, signal_number: int, pause: float) -> None:
        """It ends by a signal, is away for so many seconds, and comes back with its data."""
        self._process.end(signal_number)
        time.sleep(pause)
        with self._starting:
            if not self._ended:
                self._process = self._start()

    def end(self) -> None:
        """For good: a thread that is restarting it starts none."""
        with self._starting:
            self._ended = True
        self._process.end()

    def _start(self) -> Process:
        return start_redis(self._folder, "redis", self.port)


def start_redis(folder: Path, name: str, port: int, *more: str) -> Process:
    data = folder / f"{name}.data"
    data.mkdir(exist_ok=True)
    redis = Process(
        folder, name, "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", data,
        "--save", "", "--appendonly", "yes", "--appendfsync", "always", *more,
    )  # fmt: skip
    try:
        redis.wait_for("Ready to accept connections")
    except TimeoutError:
        redis.end()
        raise
    return redis


class Cluster:
    """All processes but those of Redis.

    redis_url    where the relays find it
    more         settings of the relays
    port         of nginx
    relays       the two relays that run now, or ran last
    ended_at     when the one before each of them was seen to have ended, in seconds since 1970
    """

    def __init__(self, folder: Path, redis_url: str, **more: str) -> None:
        self._folder = folder
        self._ports = [free_port(), free_port()]
        self._redis_url = redis_url
        self._more = more
        self.port = free_port()
        self.ended_at = [-math.inf, -math.inf]
        self.past: list[Process] = []  # relays that have ended
        self.relays: list[Process] = []
        self._others: list[Process] = []
        self._starting = threading.Lock()
        self._ended = False

    def start(self) -> None:
        simulator = Process(self._folder, "simulator", sys.executable, "-m", "relay.simulator", "--port", "0")
        self._others.append(simulator)
        self._upstream = simulator.wait_for("simulator http").split()[1]
        self.relays += [self._start_relay(number) for number in range(2)]
        for relay in self.relays:
            relay.wait_for("upstream http")
        who = f"add_header {REPLICA} $upstream_addr always; add_header {MOMENT} $msec always;"
        conf = configuration(self._folder, self.port, self._ports, more=who, connections=4096)
        self._others.append(Process(self._folder, "nginx", "nginx", "-e", "stderr", "-p", self._folder, "-c", conf))
        self._until(lambda: (self._folder / "nginx.pid").exists())
        self._until(lambda: [self.state(number)["resume"] for number in range(2)] == ["redis", "redis"])

    @staticmethod
    @contextmanager
    def started(folder: Path, redis_url: str, **more: str) -> Iterator[Cluster]:
        cluster = Cluster(folder, redis_url, **more)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.end()

    def address(self, number: int) -> str:
        return f"127.0.0.1:{self._ports[number]}"

    def state(self, number: int) -> dict[str, Any]:
        """What /readyz of a relay says."""
        with urllib.request.urlopen(f"http://{self.address(number)}/readyz", timeout=60) as answer:
            return dict(json.load(answer))

    def asked(self) -> int:
        """How many answers the upstream was asked for."""
        url = self._upstream.removesuffix("/v1") + "/simulator/stats"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(json.load(answer)["started"])

    def replace(self, number: int, signal_number: int) -> int:
        """End a relay by a signal, start another one in its place, and return the exit code."""
        code = self.relays[number].end(signal_number)
        self.ended_at[number] = time.time()
        self.past.append(self.relays[number])
        with self._starting:
            if self._ended:
                return code
            self.relays[number] = self._start_relay(number)
        self.relays[number].wait_for("upstream http")
        return code

    def logs(self) -> str:
        """All that the relays have logged since this was asked last."""
        told = "".join(relay.output for relay in (*self.past, *self.relays))
        self.past.clear()
        return told

    def end(self) -> None:
        """For good: a thread that is replacing a relay starts none."""
        with self._starting:
            self._ended = True
        for process in (*self._others, *self.relays):
            process.end()

    def _start_relay(self, number: int) -> Process:
        return Process(
            self._folder, f"relay-{number}", sys.executable, "-m", "relay", "serve", "--port", str(self._ports[number]),
            "--no-diagnostics",
            **SETTINGS,
            **self._more,
            RELAY_UPSTREAM_BASE_URL=self._upstream,
            RELAY_REDIS_URL=self._redis_url,
        )  # fmt: skip

    def _until(self, holds: Any) -> None:
        until = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError, KeyError):
                if holds():
                    return
            if time.monotonic() > until:
                raise TimeoutError("the replicas did not come up")
            time.sleep(0.05)
