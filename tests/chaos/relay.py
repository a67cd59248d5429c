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
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .machine import Disk, Processes
from .surroundings import UNREACHABLE, Surroundings

__all__ = ["LIMITS", "PATIENCE", "VARIANTS", "WORKERS", "Relay", "cpu_seconds_of"]

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
# Times all deadlines, and what may be late: for a machine that other work keeps busy.
PATIENCE = float(os.environ.get("CHAOS_PATIENCE", "1"))
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
# More than the clients of one seed ask for at once, Redis's and the collector's.
KEPT_CONNECTIONS = 60
# How a relay is set up: as it is, with several workers, or with an upstream that nobody reaches before the one that answers.
WORKERS = "workers"
VARIANTS = ("", WORKERS, *UNREACHABLE)
WORKER_COUNT = 2
# Where a client leaves in the very turn of the loop in which a connection is made that TLS is to go over, uvloop keeps a future
# for the handshake that it gives to nobody, and logs how that one fails. Nothing is held.
UNHEARD = ("Future exception was never retrieved", "uvloop/sslproto.pyx")
# As they are counted: all samples of the metric together.
MUST_BE_ZERO = ("stream_open_connections", "stream_buffered_bytes", "request_buffered_bytes")


@dataclass
class Relay:
    """One relay process, until it is told to end."""

    process: subprocess.Popen[str]
    folder: Path
    variant: str
    address: tuple[str, int]
    monitor: str
    surroundings: Surroundings
    disk: Disk | None
    processes: Processes | None
    another_monitor: subprocess.Popen[str] | None = None
    tasks: int = 0
    descriptors: list[str] = field(default_factory=list)
    rss_bytes: int = 0
    log_read: int = field(default=0)
    memray_was_on: bool = False
    most_kept: int = KEPT_CONNECTIONS

    @classmethod
    def start(cls, surroundings: Surroundings, variant: str = "", *, after: Relay | None = None) -> Relay:
        """One of VARIANTS. `after`: in the folder of that one, with what it left there."""
        folder = after.folder if after else Path(tempfile.mkdtemp(prefix="chaos-"))
        disk = after.disk if after else Disk.at(folder)
        processes = after.processes if after else Processes.counted(folder.name)
        with (folder / "stderr").open("a") as errors:
            process = subprocess.Popen(
                [
                    *(processes.before if processes else ()),
                    *(sys.executable, "-m", "relay", "serve", "--port", "0", "--diagnostics", "127.0.0.1:0"),
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                cwd=folder,
                env=_environment(surroundings, variant, folder),
            )
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(3)]
        if not lines[-1]:
            said = (folder / "stderr").read_text(encoding="utf-8")
            process.wait(60)
            process.stdout.close()
            if after is None:  # nobody else knows of it
                _remove(folder, disk, processes)
            raise AssertionError(f"the relay does not start: {said}")
        url = urlsplit(lines[0][1])
        monitor = urlsplit(lines[1][1])
        assert url.hostname is not None
        assert url.port is not None
        return cls(
            process,
            folder,
            variant,
            (url.hostname, url.port),
            f"http://{monitor.netloc}",
            surroundings,
            disk,
            processes,
        )

    def end(self) -> int:
        """SIGTERM, and the exit code; its files go."""
        code = self.stop()
        _remove(self.folder, self.disk, self.processes)
        return code

    def stop(self) -> int:
        """SIGTERM unless it has ended, and the exit code; its files stay."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.end_another_monitor()
        return code

    def start_another_monitor(self) -> None:
        """One of its own, for the folder of this relay: `monitor` is its address from now on."""
        self.end_another_monitor()
        with (self.folder / "stderr").open("a") as errors:
            self.another_monitor = subprocess.Popen(
                [sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0", "--dir", "d"],
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                cwd=self.folder,
                env=_environment(self.surroundings, self.variant, self.folder),
            )
        assert self.another_monitor.stdout is not None
        self.monitor = f"http://{urlsplit(self.another_monitor.stdout.readline().split()[1]).netloc}"

    def end_another_monitor(self) -> None:
        if self.another_monitor is not None:
            assert self.another_monitor.stdout is not None
            self.another_monitor.kill()
            self.another_monitor.wait(60)
            self.another_monitor.stdout.close()
            self.another_monitor = None

    # Its processes

    def monitor_pid(self) -> int:
        if self.another_monitor is not None:
            return self.another_monitor.pid
        return next(pid for pid in _children(self.process.pid) if b"--until-stdin-closes" in _command(pid))

    def serving(self) -> list[int]:
        """Those that serve clients: itself, or its workers."""
        if self.variant != WORKERS:
            return [self.process.pid]
        return [pid for pid in _children(self.process.pid) if b"relay.serving.worker" in _command(pid)]

    def alive(self) -> list[str]:
        """Processes of this relay, by their command lines, itself and another monitor included."""
        marked = f"DIAGNOSTICS_DIR={self.folder / 'd'}".encode()
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                # A process that has ended and was not waited for has no environment.
                if marked in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found.append(f"{name} {_command(int(name)).replace(bytes(1), b' ').decode()}")
        return found

    def cpu_seconds(self) -> float:
        """What those that serve have used so far, together."""
        return sum(map(cpu_seconds_of, self.serving()))

    # What it still holds

    def metrics(self) -> dict[str, dict[str, float]]:
        """Samples by metric and labels, as its monitor tells them."""
        with urllib.request.urlopen(f"{self.monitor}/metrics", timeout=60 * PATIENCE) as answer:
            text = answer.read().decode()
        found: dict[str, dict[str, float]] = {}
        for line in text.splitlines():
            sample = _SAMPLE.match(line)
            if sample and not line.startswith("#"):
                found.setdefault(sample[1], {})[sample[2] or ""] = float(sample[3])
        return found

    def descriptors_open(self) -> tuple[list[str], int]:
        """Of those that serve: their own, in words, and how many connections to what is around them, of which some are kept."""
        kept_ports = self.surroundings.ports
        kept = set()
        sockets = {}
        for line in Path(f"/proc/{self.process.pid}/net/tcp").read_text(encoding="utf-8").splitlines()[1:]:
            fields = line.split()
            sockets[f"socket:[{fields[9]}]"] = f"TCP {fields[1]} {fields[2]} in state {fields[3]}"
            if int(fields[2].rpartition(":")[2], 16) in kept_ports:
                kept.add(f"socket:[{fields[9]}]")
        links = []
        for pid in self.serving():
            with contextlib.suppress(FileNotFoundError):  # it has ended
                for name in os.listdir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(OSError):  # closed meanwhile
                        links.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        # The monitor's questions come over a Unix socket, one at a time, and may be under way.
        own = sorted(sockets.get(link, link) for link in links if link not in kept)
        ours = [name for name in own if not name.startswith("socket:")]
        return ours, len(links) - len(own)

    def read_rss(self) -> int:
        """Of those that serve, together."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) for pid in self.serving())
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def settle(self, seconds: float = 60 * PATIENCE) -> None:
        """Take what it holds at rest as the measure for later."""
        until = time.monotonic() + seconds
        before = None
        while time.monotonic() < until:
            now = await asyncio.to_thread(lambda: (self._tasks(self.metrics()), self.descriptors_open()[0]))
            if now == before and now[0]:
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
        answering = sum(metrics.get("diagnostics_agent_up", {}).values())
        workers = WORKER_COUNT if self.variant == WORKERS else 1
        if "asyncio_tasks" not in metrics or answering != workers:
            return [f"{answering:g} agents answer of {workers}"]
        found += _still_tracing(metrics)
        cancelling = [value for labels, value in metrics["asyncio_tasks"].items() if "cancelling" in labels and value]
        if cancelling:
            found.append(f"{cancelling[0]:g} tasks are told to end and have not ended")
        if self._tasks(metrics) > self.tasks:
            found.append(f"{self._tasks(metrics)} tasks, at rest {self.tasks}")
        new = [name for name in descriptors if name not in self.descriptors]
        # memray reads C's stacks through libunwind, which keeps a pipe, both ends of it, for as long as the process lives.
        of_memray = 2 * min(_whole_pipes(new), workers) if self.memray_was_on else 0
        if len(descriptors) > len(self.descriptors) + of_memray:
            found.append(f"{len(descriptors)} descriptors, at rest {len(self.descriptors)}: {', '.join(new)}")
        if kept > self.most_kept:
            found.append(f"{kept} connections to what is around it")
        return found

    async def at_rest(self, seconds: float = 40 * PATIENCE) -> list[str]:
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
        lines = new.splitlines()
        found = [
            number
            for number, line in enumerate(lines)
            if ("Traceback" in line or '"level": "ERROR"' in line) and not all(word in line for word in UNHEARD)
        ]
        # One in JSON says at its end what it was, one in plain text in the lines after it.
        return [
            f"{lines[at][:200]} ... {lines[at][-1500:]} {' / '.join(lines[at + 1 : at + 40])}"[:3000] for at in found
        ]


def cpu_seconds_of(pid: int) -> float:
    """User and system time of a process, without its children's."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _environment(surroundings: Surroundings, variant: str, folder: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RELAY_", "DIAGNOSTICS_", "OTEL_", "OPENAI_"))
    }
    limits = {f"RELAY_{name}": _patient(name, value) for name, value in LIMITS.items()}
    limits["RELAY_UPSTREAM_BASE_URL"] = surroundings.upstream_url
    if variant in UNREACHABLE:
        limits["RELAY_UPSTREAM_BASE_URL"] = surroundings.unreachable_url(variant)
        limits["RELAY_FALLBACK_BASE_URLS"] = surroundings.upstream_url
    if variant == WORKERS:
        limits["RELAY_WORKERS"] = str(WORKER_COUNT)
    if surroundings.redis is not None:
        limits["RELAY_REDIS_URL"] = surroundings.redis_url
    told = {
        "NO_PROXY": "127.0.0.1,upstream.invalid",
        "DIAGNOSTICS_DIR": str(folder / "d"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": surroundings.otlp_url,
        "OTEL_BSP_SCHEDULE_DELAY": "300",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    }
    return {**kept, **told, **limits}


def _remove(folder: Path, disk: Disk | None, processes: Processes | None) -> None:
    """What was made for a relay that has ended."""
    if disk is not None:
        disk.unmount()
    if processes is not None:
        processes.remove()
    shutil.rmtree(folder, ignore_errors=True)


def _patient(name: str, value: str) -> str:
    """A connection that is kept waits for its client, too."""
    deadline = name.endswith("_TIMEOUT_SECONDS") or name == "KEEP_ALIVE_SECONDS"
    return f"{float(value) * PATIENCE:g}" if deadline else value


def _whole_pipes(names: list[str]) -> int:
    """How many pipes have both their ends among these descriptors."""
    return sum(count == 2 for name, count in Counter(names).items() if name.startswith("pipe:"))


def _still_tracing(metrics: dict[str, dict[str, float]]) -> list[str]:
    held = [value for labels, value in metrics.get("memory_balance_bytes", {}).items() if 'part="tracers"' in labels]
    return [f"{value:g} bytes of a tracer" for value in held if value]


def _children(pid: int) -> list[int]:
    found = []
    for thread in os.listdir(f"/proc/{pid}/task") if Path(f"/proc/{pid}").exists() else ():
        with contextlib.suppress(OSError):
            found += [
                int(child) for child in Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="utf-8").split()
            ]
    return found


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
