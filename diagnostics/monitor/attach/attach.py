"""Attach to a process, and detach from it: the steps, each with a time limit and an error of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ...errors import (
    BusyError,
    DiagnosticsError,
    NotFoundError,
    RefusedError,
    TargetError,
    TargetSilentError,
    UsageError,
)
from ...protocol import MAX_REQUEST_BYTES, frame, read_frame, request
from ..kernel.process import Identity, identity, lives
from ..kernel.short_path import short_path
from .check import Check, check
from .folder import AgentFolder
from .ptrace import Stopped, interrupt, stopped
from .remote_debugging import remote_debugging
from .wake import nudge

__all__ = ["PATIENCE_SECONDS", "Attachment", "attach", "detach", "still_there"]

# A busy service's main thread runs a pending call within milliseconds, an idle uvicorn's within 0.1 s.
PATIENCE_SECONDS: Final = 10.0
# An idle event loop is woken: first by stopping its thread for a moment, later by connecting to a port that it listens on.
_INTERRUPT_SECONDS: Final = 0.2
_NUDGE_SECONDS: Final = 2.0
_LOAD_SECONDS: Final = 30.0
_ASK_SECONDS: Final = 5.0
_LEAVE_SECONDS: Final = 10.0
_TRIES: Final = 3
# While the service's thread is stopped, this process should be scheduled first.
_NICENESS: Final = -10

# The source that a pending call runs in the service's __main__: one expression that defines no names there.
_EXPRESSION: Final = """exec({text!r}, {{}})\0"""
_READ_AND_RUN: Final = """try:
 with open({file!r}) as f: s = f.read()
 exec(compile(s, {file!r}, 'exec'), {{'page': {page}}})
except BaseException: pass
"""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One attached process. `folder`: its agent's, a path as the process sees it; `uid`: the user who ran the command."""

    who: Identity
    folder: str
    since: str
    how: str
    uid: int

    def to_json(self) -> dict[str, Any]:
        return {"pid": self.who.pid, "folder": self.folder, "since": self.since, "how": self.how, "uid": self.uid,
                "who": asdict(self.who)}  # fmt: skip

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Attachment:
        """The inverse of `to_json`. Raises KeyError, TypeError, ValueError for other JSON."""
        who = fields["who"]
        known = Identity(int(who["pid"]), str(who["boot_id"]), int(who["start_ticks"]))
        return cls(known, str(fields["folder"]), str(fields["since"]), str(fields["how"]), int(fields["uid"]))


def attach(pid: int, patience: float = PATIENCE_SECONDS) -> Attachment:
    """Load the agent into process `pid`. Raises DiagnosticsError, and leaves the process as it was.

    patience   seconds to wait for the process's main thread to run the call
    """
    checked = check(pid)
    if checked.problems:
        raise _as_error(checked)
    who = identity(pid)
    if who is None:
        raise NotFoundError(f"process {pid} has just ended")
    assert checked.interpreter is not None
    folder = AgentFolder.make(pid, checked.uid, checked.gid, checked.interpreter)
    try:
        with _sent(checked, folder.entry) as give_up:
            try:
                _await(checked, folder, patience)
            except DiagnosticsError:
                give_up()
                raise
    except BaseException:
        folder.remove()
        raise
    since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    made = Attachment(who[0], folder.inside, since, checked.how or "", os.getuid())
    folder.note(made.to_json())
    return made


def detach(pid: int, *, force: bool = False) -> None:
    """Unload the agent from process `pid`, and remove its folder.

    force   even while a capture runs
    Raises NotFoundError where no agent was put in, BusyError while a capture runs.
    """
    folder = AgentFolder.of(pid)
    if folder is None:
        raise NotFoundError(
            f"process {pid} has not been attached to",
            remedy="`diagnostics status URL` lists what a monitor is attached to",
        )
    for path in folder.sockets():
        _tell_to_leave(pid, path, force)
        deadline = time.monotonic() + _LEAVE_SECONDS
        while path.exists():
            if time.monotonic() > deadline:
                raise TargetSilentError(
                    f"the agent of process {pid} has not left within {_LEAVE_SECONDS:g} s", remedy="try again"
                )
            time.sleep(0.01)
    folder.remove()


def _as_error(checked: Check) -> DiagnosticsError:
    first = checked.problems[0]
    kind: type[DiagnosticsError] = {
        "no_process": NotFoundError,
        "attached": BusyError,
        **dict.fromkeys(("not_python", "itself", "too_old", "too_new", "static", "machine"), UsageError),
        **dict.fromkeys(("zombie", "disk_wait", "stopped"), TargetError),
    }.get(first.code, RefusedError)
    more = (
        f" (and {len(checked.problems) - 1} more: `diagnostics attach --check {checked.pid}`)"
        if checked.problems[1:]
        else ""
    )
    return kind(first.says + more, remedy=first.remedy["linux"], code=first.code)


@contextlib.contextmanager
def _sent(checked: Check, entry: str) -> Iterator[Callable[[], None]]:
    """Make the main thread run the file `entry`; yields a function that cancels this, if the thread has not run it yet."""
    interpreter = checked.interpreter
    assert interpreter is not None
    if "remote" in (checked.how or ""):
        with remote_debugging(checked.pid, interpreter.version, interpreter.addresses["_PyRuntime"]) as remote:
            remote.run(entry)
            yield remote.give_up
        return
    # In a thread that ends afterwards: then the kernel detaches its tracee, whatever has failed.
    with ThreadPoolExecutor(1) as tracer:
        tracer.submit(_call, checked.pid, interpreter.addresses, entry).result()
    yield lambda: None  # the call finds no file once the folder is removed


def _call(pid: int, addresses: dict[str, int], entry: str) -> None:
    """Queue the entry as a pending call, which Python runs between two bytecodes of its main thread."""
    instruction = Stopped(pid).system_call_instruction()
    with _first_served():
        for left in reversed(range(_TRIES)):
            try:
                with stopped(pid) as thread:
                    page = thread.map_page(instruction)
                    text = _READ_AND_RUN.format(file=entry, page=page)
                    thread.write(page, _EXPRESSION.format(text=text).encode())
                    if thread.call(addresses["Py_AddPendingCall"], addresses["PyRun_SimpleString"], page) == 0:
                        return
                    raise BusyError(f"the queue of process {pid} for its main thread is full", remedy="try again")
            except (BusyError, TargetSilentError):
                if not left:
                    raise
            time.sleep(0.05)


@contextlib.contextmanager
def _first_served() -> Iterator[None]:
    """Raise this process's priority where its user may; restored at the end."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(before, _NICENESS))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, before)


def _await(checked: Check, folder: AgentFolder, patience: float) -> None:
    """Wait until the agent listens. Raises TargetSilentError where the main thread ran no call, TargetError on failure."""
    pid, began = checked.pid, time.monotonic()
    wakes = [(_INTERRUPT_SECONDS, interrupt)] if "remote" in (checked.how or "") else []
    wakes.append((_NUDGE_SECONDS, nudge))
    while True:
        report = folder.report()
        if report is not None and report.get("state") != "coming":
            break
        waited = time.monotonic() - began
        if report is None and wakes and waited > wakes[0][0]:
            with contextlib.suppress(DiagnosticsError), ThreadPoolExecutor(1) as waker:  # may fail
                waker.submit(wakes.pop(0)[1], pid).result()
        if waited > patience and report is None:
            raise TargetSilentError(
                f"the main thread of process {pid} did not come by within {patience:g} s{_waits_in(pid)}",
                remedy="nothing was put in; try again while it serves, or read it by `diagnostics watch`",
            )
        if waited > patience + _LOAD_SECONDS:
            raise TargetSilentError(f"the agent of process {pid} was not loaded within {waited:.0f} s")
        if identity(pid) is None:
            raise TargetError(f"process {pid} has ended")
        time.sleep(0.005)
    if report.get("state") != "listening":
        kind = BusyError if report.get("state") == "refused" else TargetError
        raise kind(f"process {pid} did not take the agent: {report.get('what')}")


def _waits_in(pid: int) -> str:
    """The kernel function in which the main thread waits (/proc/<pid>/wchan), for a message; empty where unknown."""
    with contextlib.suppress(OSError):
        place = Path(f"/proc/{pid}/wchan").read_text(encoding="utf-8").strip()
        if place and place != "0":
            return f"; it waits in {place}"
    return ""


def _tell_to_leave(pid: int, path: Path, force: bool) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(_ASK_SECONDS)
        try:
            with short_path(path) as address:
                connection.connect(address)
            connection.sendall(frame(request("leave", force=force)))
            reply = read_frame(connection, MAX_REQUEST_BYTES)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)  # the agent has ended by itself
            return
        except OSError as error:
            raise TargetSilentError(
                f"the agent of process {pid} does not answer: {error}",
                remedy="its process is stopped, or holds the GIL; try again once it runs",
            ) from error
    refusal = reply.get("error")
    if refusal is not None:
        kind = BusyError if refusal.get("code") == "busy" else TargetError
        raise kind(str(refusal.get("message")), remedy=str(refusal.get("remedy", "")))


def still_there(made: Attachment) -> bool:
    """Whether the process lives and has its agent's folder."""
    return lives(made.who) and Path(f"/proc/{made.who.pid}/root{made.folder}").is_dir()
