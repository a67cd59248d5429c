"""The relay under test: `relay serve` as a process, and what it still holds, as its monitor and the kernel tell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from diagnostics.proof.subjects.processes import free_port

__all__ = ["LIMITS", "Relay", "Surroundings"]

START_SECONDS = 90
# Short, so that what waits for a deadline has it within a seed; long enough for a machine that is busy with other things.
LIMITS = {
    "READ_TIMEOUT_SECONDS": "5",
    "WRITE_TIMEOUT_SECONDS": "3",
    "IDLE_TIMEOUT_SECONDS": "6",
    "STREAM_TIMEOUT_SECONDS": "10",
    "RESPONSE_TIMEOUT_SECONDS": "5",
    "HEAD_TIMEOUT_SECONDS": "3",
    "REQUEST_BODY_TIMEOUT_SECONDS": "3",
    "KEEP_ALIVE_SECONDS": "2",
    "CONNECT_TIMEOUT_SECONDS": "3",
    "POOL_TIMEOUT_SECONDS": "3",
    "HEARTBEAT_SECONDS": "1",
    "UPSTREAM_RETRIES": "1",
    "BREAKER_FAILURES": "1000000",
    "DRAIN_SECONDS": "1",
    "MAX_REQUEST_BYTES": "4000000",
    "MAX_RESPONSE_BYTES": "8000000",
    "REQUESTS_BYTES": "16000000",
    "LOG_FORMAT": "json",
}
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
# More than the clients of one seed ask for at once, and Redis's.
KEPT_CONNECTIONS = 60
# As they are counted: all samples of the metric together.
MUST_BE_ZERO = ("stream_open_connections", "stream_buffered_bytes", "request_buffered_bytes")


@dataclass
class Surroundings:
    """The upstream and Redis, which outlive relays."""

    upstream: subprocess.Popen[str]
    upstream_port: int
    redis: subprocess.Popen[bytes] | None
    redis_port: int

    @classmethod
    @contextlib.contextmanager
    def started(cls) -> Iterator[Surroundings]:
        upstream = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.upstream"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert upstream.stdout is not None
        made = cls(upstream, int(upstream.stdout.readline()), None, free_port())
        try:
            made.start_redis()
            yield made
        finally:
            made.kill_redis()
            assert upstream.stdin is not None
            upstream.stdin.close()
            upstream.wait(30)
            upstream.stdout.close()

    def start_redis(self) -> None:
        if self.redis is None and shutil.which("redis-server"):
            self.redis = subprocess.Popen(
                [
                    "redis-server",
                    "--port",
                    str(self.redis_port),
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ],
                stdout=subprocess.DEVNULL,
            )

    def kill_redis(self) -> None:
        redis, self.redis = self.redis, None
        if redis is not None:
            redis.kill()
            redis.wait(30)


@dataclass
class Relay:
    """One relay process, until it is told to end."""

    process: subprocess.Popen[str]
    folder: Path
    address: tuple[str, int]
    monitor: str
    surroundings: Surroundings
    tasks: int = 0
    descriptors: list[str] = field(default_factory=list)
    rss_bytes: int = 0
    log_read: int = field(default=0)

    @classmethod
    def start(cls, surroundings: Surroundings, **settings: str) -> Relay:
        folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RELAY_", "DIAGNOSTICS_", "OTEL_", "OPENAI_"))
        }
        limits = {f"RELAY_{name}": value for name, value in {**LIMITS, **settings}.items()}
        limits.setdefault("RELAY_UPSTREAM_BASE_URL", f"http://127.0.0.1:{surroundings.upstream_port}/v1")
        if surroundings.redis is not None:
            limits["RELAY_REDIS_URL"] = f"redis://127.0.0.1:{surroundings.redis_port}/0"
        with (folder / "stderr").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "relay", "serve", "--port", "0", "--diagnostics", "127.0.0.1:0"],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=folder,
                env={**kept, "NO_PROXY": "127.0.0.1", "DIAGNOSTICS_DIR": str(folder / "d"), **limits},
            )
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(3)]
        assert lines[-1], (folder / "stderr").read_text()
        url = urlsplit(lines[0][1])
        monitor = urlsplit(lines[1][1])
        assert url.hostname is not None
        assert url.port is not None
        return cls(process, folder, (url.hostname, url.port), f"http://{monitor.netloc}", surroundings)

    def end(self) -> int:
        """SIGTERM, and the exit code; its files go."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        return code

    # What it still holds

    def metrics(self) -> dict[str, dict[str, float]]:
        """Samples by metric and labels, as its monitor tells them."""
        with urllib.request.urlopen(f"{self.monitor}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        found: dict[str, dict[str, float]] = {}
        for line in text.splitlines():
            sample = _SAMPLE.match(line)
            if sample and not line.startswith("#"):
                found.setdefault(sample[1], {})[sample[2] or ""] = float(sample[3])
        return found

    def descriptors_open(self) -> tuple[list[str], int]:
        """Its own, in words, and how many connections to the upstream and to Redis, of which it keeps some for later."""
        kept_ports = {self.surroundings.upstream_port, self.surroundings.redis_port}
        kept = set()
        sockets = {}
        for line in Path(f"/proc/{self.process.pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            sockets[f"socket:[{fields[9]}]"] = f"TCP {fields[1]} {fields[2]} in state {fields[3]}"
            if int(fields[2].rpartition(":")[2], 16) in kept_ports:
                kept.add(f"socket:[{fields[9]}]")
        folder = f"/proc/{self.process.pid}/fd"
        links = []
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):  # closed meanwhile
                links.append(os.readlink(f"{folder}/{name}"))
        # The monitor's questions come over a Unix socket, one at a time, and may be under way.
        own = sorted(sockets.get(link, link) for link in links if link not in kept)
        ours = [name for name in own if not name.startswith("socket:")]
        return ours, len(links) - len(own)

    def read_rss(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def settle(self, seconds: float = 60) -> None:
        """Take what it holds at rest as the measure for later."""
        until = time.monotonic() + seconds
        before = None
        while time.monotonic() < until:
            now = await asyncio.to_thread(lambda: (self._tasks(self.metrics()), self.descriptors_open()[0]))
            if now == before:
                self.tasks, self.descriptors = now
                self.rss_bytes = self.read_rss()
                return
            before = now
            await asyncio.sleep(1.2)
        raise AssertionError("the relay does not come to rest before anything was asked of it")

    @staticmethod
    def _tasks(metrics: dict[str, dict[str, float]]) -> int:
        return int(sum(metrics.get("asyncio_tasks", {}).values()))

    def holds(self) -> list[str]:
        """What it holds that it should not at rest, in words; empty where all is as it was at the beginning."""
        # First: the monitor's questions are connections, too.
        descriptors, kept = self.descriptors_open()
        metrics = self.metrics()
        found = []
        for name in MUST_BE_ZERO:
            if (
                name not in metrics and name == "request_buffered_bytes"
            ):  # the others are told by route, once there is one
                found.append(f"{name} is not told")
            found += [f"{name}{{{labels}}} is {value:g}" for labels, value in metrics.get(name, {}).items() if value]
        if "asyncio_tasks" not in metrics:
            return ["its agent does not answer"]
        cancelling = [value for labels, value in metrics["asyncio_tasks"].items() if "cancelling" in labels and value]
        if cancelling:
            found.append(f"{cancelling[0]:g} tasks are told to end and have not ended")
        if self._tasks(metrics) > self.tasks:
            found.append(f"{self._tasks(metrics)} tasks, at rest {self.tasks}")
        if len(descriptors) > len(self.descriptors):
            new = [name for name in descriptors if name not in self.descriptors]
            found.append(f"{len(descriptors)} descriptors, at rest {len(self.descriptors)}: {', '.join(new)}")
        if kept > KEPT_CONNECTIONS:
            found.append(f"{kept} connections to the upstream and to Redis")
        return found

    async def at_rest(self, seconds: float = 40) -> list[str]:
        """Wait for it to hold nothing; what it still holds then, in words."""
        until = time.monotonic() + seconds
        while True:
            found = await asyncio.to_thread(self.holds)
            if not found or time.monotonic() > until:
                return found
            await asyncio.sleep(0.25)

    def complaints(self) -> list[str]:
        """Tracebacks in its log since the last look."""
        text = (self.folder / "stderr").read_text(errors="replace")
        new, self.log_read = text[self.log_read :], len(text)
        found = [line for line in new.splitlines() if "Traceback" in line or '"level": "ERROR"' in line]
        return [f"{line[:200]} ... {line[-1500:]}" for line in found]  # a traceback says at its end what it was
