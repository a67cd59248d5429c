"""A service while it runs, alone or under `diagnostics run`: its processes, what it printed, how it ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from diagnostics.proof.subjects.processes import free_port

from .service import Service

READY_SECONDS = 150.0
STOP_SECONDS = 40.0
# What a process that was told to end may still need to vanish from /proc after its parent has gone.
_GONE_SECONDS = 5.0
_POLL_SECONDS = 0.02
# What would steer a service under test, from the shell that started the suite.
_STEERING = ("DIAGNOSTICS_", "RELAY_", "OTEL_", "PYTHON", "VIRTUAL_ENV")


_started: set[subprocess.Popen[bytes]] = set()


class Failed(Exception):
    """The service did not do what it must do even without us; says what it printed last."""


@dataclass
class Running:
    """process       the service's own first process, or `diagnostics run`
    environment   the environment that it runs in
    monitor       the monitor's address, empty where there is none
    seconds       from the start until the first answer (`ready`), from the ending signal to the end (`stop`)
    """

    service: Service
    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    environment: Path
    observed: bool
    began: float = field(default_factory=time.monotonic)
    monitor: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def root(self) -> int | None:
        """The process id of the service's own first process; None where it has ended."""
        if not self.observed:
            return self.process.pid if self.process.poll() is None else None
        # Parents come before their children, whatever their numbers: those begin anew at some time.
        below = descendants(self.process.pid)
        return next((pid for pid in below if b"DIAGNOSTICS_MONITOR_URL=" in _environ(pid)), None)

    def family(self) -> list[int]:
        """The service's processes, without `diagnostics run` and what the monitor itself started."""
        root = self.root()
        return [] if root is None else [root, *descendants(root)]

    def variables(self) -> dict[str, str]:
        """The environment of the service's first process, as it was started."""
        root = self.root()
        pairs = _environ(root).split(b"\0") if root else []
        return dict(pair.decode(errors="replace").partition("=")[::2] for pair in pairs if b"=" in pair)

    def signal(self, name: str) -> None:
        self.process.send_signal(signal.Signals[f"SIG{name}"])

    def ended_within(self, seconds: float) -> int | None:
        """The exit code as a shell says it (128 + number for a signal), None where it still runs."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code

    def left_behind(self, before: Mapping[int, str]) -> list[str]:
        """What is still there of the processes that it had, some seconds after its end."""
        deadline = time.monotonic() + _GONE_SECONDS
        while left := [pid for pid, born in before.items() if _birth(pid) == born]:
            if time.monotonic() > deadline:
                return [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:120] for pid in left]
            time.sleep(0.1)
        return []

    def tail(self) -> str:
        return (self.stdout[-1500:] + self.stderr[-3000:]).strip()


def descendants(pid: int) -> dict[int, str]:
    """All processes below `pid` with their time of birth, by the parent that each names: /proc/PID/task/TID/children may leave
    some out while others end (proc(5))."""
    born: dict[int, str] = {}
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (words := _stat(int(entry.name))):
            born[int(entry.name)] = words[19]
            below.setdefault(int(words[1]), []).append(int(entry.name))
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        for child in below.get(waiting.pop(0), ()):
            found[child] = born[child]
            waiting.append(child)
    return found


def _stat(pid: int) -> list[str] | None:
    """The words of a process's stat from its state on (proc(5)); None where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _birth(pid: int) -> str | None:
    """When it was started; None where it has ended."""
    words = _stat(pid)
    return None if words is None or words[0] == "Z" else words[19]


@contextlib.contextmanager
def beside(service: Service, folder: Path) -> Iterator[str]:
    """What the service needs beside it, for as long as the block lasts; yields its address."""
    if not service.beside:
        yield ""
        return
    with open(folder / "beside", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, *service.beside], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdin
    assert process.stdout
    with process.stdin, process.stdout:
        try:
            found = re.search(rb"http\S+", process.stdout.readline())
            if not found:
                said = (folder / "beside").read_text(encoding="utf-8")
                raise Failed(f"{' '.join(service.beside)} did not say where it listens: {said}")
            yield found[0].decode()
        finally:
            process.terminate()
            process.wait(20)


@contextlib.contextmanager
def running(
    service: Service, environment: Path, folder: Path, *, observed: bool, upstream: str = ""
) -> Iterator[Running]:
    """The service, started; whatever of it is left at the end of the block is killed."""
    folder.mkdir(parents=True)
    port = free_port()
    places = {
        "{bin}": str(environment / "bin"), "{port}": str(port), "{apps}": str(service.apps), "{folder}": str(folder),
        "{upstream}": upstream,
    }  # fmt: skip
    command = [_filled(word, places) for word in service.command]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_STEERING)}
    own = {"HOME": str(folder), **{name: _filled(value, places) for name, value in service.environment.items()}}
    variables = {**kept, **own}
    if observed:
        command = [sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", *command]
        variables |= {"DIAGNOSTICS_DIR": str(folder / "diagnostics"), **service.settings}
    with open(folder / "stdout", "wb") as stdout, open(folder / "stderr", "wb") as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd=folder, env=variables,
            start_new_session=True,
        )  # fmt: skip
    _started.add(process)
    started = Running(service, process, port, folder, environment, observed)
    try:
        yield started
    finally:
        _kill(process)
        process.wait()
        _started.discard(process)


def kill_all() -> None:
    """Kill whatever runs of the services, for a suite that was told to end."""
    for process in list(_started):
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that was started here, and all below it, also what has made a session of its own."""
    if process.poll() is None:
        family = {process.pid: _birth(process.pid), **descendants(process.pid)}
    elif Path(f"/proc/{process.pid}").exists():  # its number is somebody else's by now
        return
    else:
        family = {}
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid, born in family.items():
        if born is not None and _birth(pid) == born:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _filled(word: str, places: Mapping[str, str]) -> str:
    for name, value in places.items():
        word = word.replace(name, value)
    return word
