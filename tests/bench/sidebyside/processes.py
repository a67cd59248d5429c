"""Processes on cores of their own, and what they use: CPU time, resident memory, bytes in the kernel's buffers."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from diagnostics.proof.subjects.processes import free_port as free_port

ROOT = Path(__file__).parents[3]
# One core for the service under test and what belongs to it, the other for upstream, clients, sink and this program.
RELAY_CORE, TRAFFIC_CORE = 0, 1
PAGE = resource.getpagesize()
# What steers a service from outside is the benchmark's to say.
STEERING = ("DIAGNOSTICS_", "RELAY_", "OTEL_", "OPENAI_", "PYTHONPATH")


class PeerFailedError(Exception):
    """A process under test does not start, or does not do what it is there for."""


@dataclass
class Started:
    """A process; what it says on standard error is kept, to be told if it fails."""

    process: subprocess.Popen[str]
    log: IO[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self, beginning: str) -> str:
        """The rest of the first line of output that begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(beginning):
                return line.removeprefix(beginning).strip()
        raise self.failure(f"ended without printing {beginning!r}")

    def failure(self, what: str) -> PeerFailedError:
        self.log.seek(0)
        words = [str(word) for word in self.process.args] if isinstance(self.process.args, list) else []
        return PeerFailedError(
            f"{' '.join(words)}: {what}; it said:\n{self.log.read().decode(errors='replace')[-2000:]}"
        )

    def output(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read()


@contextlib.contextmanager
def started(
    command: list[str],
    core: int,
    env: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
    stdin: bool = False,
) -> Iterator[Started]:
    """A process on one core, ended with the block: asked first, killed after ten seconds."""
    with tempfile.TemporaryFile() as log, _process(command, core, env, cwd, stdin=stdin, log=log) as process:
        yield Started(process, log)


@contextlib.contextmanager
def _process(
    command: list[str], core: int, env: Mapping[str, str] | None, cwd: Path | None, *, stdin: bool, log: IO[bytes]
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command],
        stderr=log,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={name: value for name, value in os.environ.items() if not name.startswith(STEERING)} | dict(env or {}),
        cwd=cwd,
    )
    try:
        yield process
    finally:
        if process.stdin:
            process.stdin.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout:
            process.stdout.close()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of what serves with it, to the nanosecond.

    By its CPU-time clock (clock_getcpuclockid(3); the number is made as Linux makes it), since /proc counts in hundredths
    of a second.
    """
    return sum(time.clock_gettime((~each << 3) | 2) for each in serving_pids(pid))


def rss_bytes(pid: int) -> int:
    """Resident memory of a process and of what serves with it."""
    return sum(_resident(each) for each in serving_pids(pid))


def beside_rss_bytes(pid: int) -> int:
    """Resident memory of a process's children that do not serve."""
    return sum(_resident(each) for each in beside_pids(pid))


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * PAGE


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def serving_pids(pid: int) -> list[int]:
    """The process and, for nginx, its worker; not the relay's monitor, which is not in the path of a stream."""
    return [pid, *(child for child in children_of(pid) if b"nginx" in _command(child))]


def beside_pids(pid: int) -> list[int]:
    """Children that do not serve: the relay's monitor. A fork that reads the process's memory is gone in a moment."""
    own = _command(pid)
    return [child for child in children_of(pid) if child not in serving_pids(pid) and _command(child) not in (own, b"")]


def beside_seconds(pid: int) -> float:
    """CPU of what runs beside a process, and of its children that have ended, such as those that read its memory."""
    return running_beside_seconds(pid) + ended_seconds(pid)


def running_beside_seconds(pid: int) -> float:
    """CPU of what runs beside a process."""
    return sum(time.clock_gettime((~each << 3) | 2) for each in beside_pids(pid))


def ended_seconds(pid: int) -> float:
    """CPU of a process's children that have ended."""
    ended = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[13:15]
    return sum(map(int, ended)) / os.sysconf("SC_CLK_TCK")


def _command(pid: int) -> bytes:
    """A process's command line; nothing of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def kernel_bytes(pid: int) -> int:
    """What the kernel holds in the socket buffers of a process: sent and not acknowledged, received and not read."""
    inodes = set()
    for each in serving_pids(pid):
        for descriptor in Path(f"/proc/{each}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                name = os.readlink(descriptor)
                if name.startswith("socket:["):
                    inodes.add(name[8:-1])
    total = 0
    for line in Path(f"/proc/{pid}/net/tcp").read_text(encoding="utf-8").splitlines()[1:]:
        fields = line.split()
        if fields[9] in inodes and fields[3] != "0A":  # 0A listens: its queue counts connections
            sent, received = fields[4].split(":")
            total += int(sent, 16) + int(received, 16)
    return total


def wait_for_port(port: int, process: Started, patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.process.poll() is not None or time.monotonic() > deadline:
                raise process.failure(f"nothing listens on port {port}") from None
            time.sleep(0.05)
