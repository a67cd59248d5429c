"""Processes that an experiment starts, and that never outlive it.

Each is the leader of a session of its own, so that a Ctrl-C in the terminal reaches the experiment alone, which ends the
others in order. A process's output goes to a file, whose last lines are shown where it failed.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from ...errors import TargetError, TargetSilentError

__all__ = ["Process", "descendants", "free_port", "start", "wait_for_listener"]

# A service that drains its streams gets this long before it is killed.
_GRACE_SECONDS = 3.0
_POLL_SECONDS = 0.02
# A failure of a part may precede the process's end by this much: a monitor stops answering, then `diagnostics run` ends.
_DYING_SECONDS = 5.0
_TAIL_LINES = 15
# oom_score_adj (proc(5)): from -1000, never killed, to 1000, killed first. Children inherit it.
_FIRST_TO_GO = "500"
# Ports to choose from, and how many are tried.
_PORTS = 16_000
_PORT_TRIES = 100
# Descriptors of the ports that this process has claimed last.
_claimed: deque[int] = deque()
_MOST_CLAIMED = 32


class Process:
    """A started process, its output file, and how it ended."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, output: Path) -> None:
        self.name = name
        self.output = output
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def tail(self) -> str:
        """The last lines of its output."""
        lines = self.output.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(f"    | {line}" for line in lines) or "    | (it printed nothing)"

    def check(self) -> None:
        """Raise TargetError where the process has ended."""
        code = self._process.returncode
        if code is not None:
            raise TargetError(
                f"the {self.name} ended with {_how(code)}; its last output:\n{self.tail()}", code="target_died"
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, not to its children."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def ended(self) -> None:
        """Return when the process has ended."""
        await self._process.wait()

    async def blamed(self, error: TargetError) -> TargetError:
        """The error to raise for `error`: where the process ends within moments, one with its exit and last output."""
        deadline = time.monotonic() + _DYING_SECONDS
        while time.monotonic() < deadline:
            try:
                self.check()
            except TargetError as cause:
                return cause
            await asyncio.sleep(_POLL_SECONDS)
        return error

    async def line(self, pattern: str, timeout_seconds: float) -> re.Match[str]:
        """The first matching line of its output. Raises TargetError if it ends first, TargetSilentError after the time-out."""
        expression = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + timeout_seconds
        while not (match := expression.search(self.output.read_text(errors="replace"))):
            self.check()
            if time.monotonic() > deadline:
                raise TargetSilentError(
                    f"the {self.name} did not say where it listens within {timeout_seconds:g} s;"
                    f" its last output:\n{self.tail()}"
                )
            await asyncio.sleep(_POLL_SECONDS)
        return match

    async def end(self) -> None:
        """End the process and its descendants: SIGTERM, then SIGKILL."""
        family = descendants(self.pid)
        if self._process.returncode is None:
            _signal_group(self.pid, signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_SECONDS):
                    await self._process.wait()
        family |= descendants(self.pid)
        _signal_group(self.pid, signal.SIGKILL)
        for pid, born in family.items():
            # A child may have a session of its own; its start time excludes a later process with the same pid.
            if _birth(pid) == born:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await self._process.wait()


def _how(code: int) -> str:
    """How a process ended, in words. 128 + a signal's number is taken for a child's death by that signal, as in a shell."""
    number = -code if code < 0 else code - 128
    if number not in {known.value for known in signal.Signals}:
        return f"exit code {code}"
    killed = " (the kernel sends it where memory runs out)" if number == signal.SIGKILL else ""
    return f"signal {signal.Signals(number).name}{killed}"


@asynccontextmanager
async def start(
    name: str, command: Sequence[str], *, output: Path, environment: Mapping[str, str] | None = None
) -> AsyncGenerator[Process, None]:
    """Start `command` with `environment` added to ours; end it and its children with the block."""
    with output.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=sink,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "DIAGNOSTICS_LOOKS_PER_HOUR": "0", **(environment or {})},
            start_new_session=True,
        )
    _be_the_first_to_go(process.pid)
    started = Process(name, process, output)
    try:
        yield started
    finally:
        # Shielded: a second Ctrl-C must not leave processes behind.
        await asyncio.shield(asyncio.ensure_future(started.end()))
        if process.stdin is not None:
            process.stdin.close()


def free_port() -> int:
    """A port of 127.0.0.1 that is free now, and that the kernel will not assign to a client connection.

    From below the range of ephemeral ports (ip(7), ip_local_port_range): a service binds it seconds later, and other
    experiments open a hundred connections a second. Chosen by SystemRandom: processes with equal seeds would otherwise
    choose the same one. No other process that asks gets it either, until this one ends or has asked _MOST_CLAIMED times more.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="utf-8").split()[0])
    below = range(max(1024, first - _PORTS), first)
    for port in random.SystemRandom().sample(below, min(len(below), _PORT_TRIES)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _claim(port)
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free: int = probe.getsockname()[1]
        return free


def _claim(port: int) -> None:
    """Raises OSError where a process has claimed this port: by a socket with its name, which the kernel takes from who ends."""
    with socket.socket(socket.AF_UNIX) as claim:
        claim.bind(f"\0highwater-port-{port}")
        _claimed.append(claim.detach())
    while len(_claimed) > _MOST_CLAIMED:
        os.close(_claimed.popleft())


async def wait_for_listener(process: Process, port: int, timeout_seconds: float) -> None:
    """Return when 127.0.0.1:`port` accepts. Raises TargetError where the process ends first, TargetSilentError after a time."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        # A socket and no stream: whoever gives up waiting leaves none that is still to be closed by the loop.
        with socket.socket() as probe:
            probe.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(probe, ("127.0.0.1", port))
            except ConnectionError:
                process.check()
            else:
                return
        if time.monotonic() > deadline:
            raise TargetSilentError(
                f"the {process.name} does not listen on port {port} after {timeout_seconds:g} s;"
                f" its last output:\n{process.tail()}",
                code="target_never_listened",
            )
        await asyncio.sleep(_POLL_SECONDS)


def _be_the_first_to_go(pid: int) -> None:
    """Make the OOM killer prefer the service under study to the experiment, which must report what happened."""
    with suppress(OSError):  # it has ended already; `check` reports how
        Path(f"/proc/{pid}/oom_score_adj").write_text(_FIRST_TO_GO, encoding="utf-8")


def _signal_group(pgid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pgid, number)


def _birth(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot (proc(5), stat field 22); None where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def descendants(pid: int) -> dict[int, str]:
    """The descendants of `pid`: pid -> start time."""
    births: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        for child in _children(waiting.pop()):
            born = _birth(child)
            if born is not None and child not in births:
                births[child] = born
                waiting.append(child)
    return births


def _children(pid: int) -> list[int]:
    """The children of all threads of a process; those of a thread that ends meanwhile are missing."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []
    children: list[int] = []
    for thread in threads:
        with suppress(FileNotFoundError, ProcessLookupError):
            children += map(int, (thread / "children").read_text(encoding="utf-8").split())
    return children
