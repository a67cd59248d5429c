"""Attaches to several processes at once, and detaches: each one is recorded, audited and printed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import DiagnosticsError, NotFoundError
from ..monitor.attach.attach import Attachment, attach, detach
from ..monitor.audit import Asker, Audit
from ..monitor.kernel.family import Family
from ..monitor.kernel.process import alive
from ..monitor.kernel.sockets import Sockets
from ..monitor.workers.attachments import Attachments

__all__ = ["Attaching", "login_uid", "matching", "workers_of"]

_AT_ONCE = 4
_LOGIN_UID = Path("/proc/self/loginuid")
_NO_LOGIN = 2**32 - 1
_ASKER = Asker("the command line")


class Attaching:
    """The attachments that one command makes in one registry. `made`: pid -> those it has not detached again."""

    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        self._attachments = Attachments(root)
        self._audit = Audit(root / "audit.log")
        self._say = say
        self.made: dict[int, Attachment] = {}

    def attach(self, pids: Sequence[int], patience: float) -> list[DiagnosticsError]:
        """Attach to all processes, a few at a time; returns the errors of those that failed. `patience`: seconds for each."""

        def one(pid: int) -> DiagnosticsError | None:
            try:
                made = attach(pid, patience)
            except DiagnosticsError as error:
                self._note("attach", error.code, pid)
                return error
            self._attachments.add(made)
            self.made[pid] = made
            self._note("attach", "done", pid, how=made.how)
            self._say(f"attached to process {pid} by {made.how}")
            return None

        with ThreadPoolExecutor(_AT_ONCE) as several:  # a tracer is a thread
            return [error for error in several.map(one, pids) if error is not None]

    def detach(self, pids: Iterable[int], *, force: bool) -> list[DiagnosticsError]:
        """Detach from all processes; returns the errors of those that failed."""
        failed: list[DiagnosticsError] = []
        for pid in pids:
            try:
                detach(pid, force=force)
            except NotFoundError as error:
                failed.append(error)
                self._note("detach", error.code, pid)
            except DiagnosticsError as error:
                failed.append(error)
                self._note("detach", error.code, pid)
                continue
            else:
                self._note("detach", "done", pid)
                self._say(f"detached from process {pid}")
            self._attachments.remove(pid)
            self.made.pop(pid, None)
        return failed

    def recorded(self) -> list[int]:
        """The pids of all attached processes of this registry, also of other commands."""
        return [made.who.pid for made in self._attachments.all()]

    def _note(self, event: str, outcome: str, pid: int, **facts: Any) -> None:
        self._audit.note(event, outcome, _ASKER, uid=os.getuid(), login_uid=login_uid(), pid=pid, **facts)


def login_uid(path: Path = _LOGIN_UID) -> int | None:
    """The user who logged in, which `sudo` and `su` leave as it is; None where nobody did, as in containers.

    path   the kernel's file with it, which pam_loginuid(8) writes
    """
    try:
        number = int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a kernel without audit
        return None
    return None if number == _NO_LOGIN else number


def matching(text: str) -> list[int]:
    """The processes whose command line contains `text`, without this process and its ancestors."""
    beside = {os.getpid(), *Family().above(os.getpid())}
    pids = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) not in beside:
            with contextlib.suppress(OSError):  # it has just ended
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if text in words:
                    pids.append(int(process.name))
    if not pids:
        raise NotFoundError(f"no process has {text!r} in its command line", remedy="ps -e -o pid,args shows them")
    return sorted(pids)


def workers_of(parent: int) -> list[int]:
    """The descendants of `parent` that serve; all its children where none does. Raises NotFoundError."""
    if parent <= 0 or not alive(parent):
        raise NotFoundError(f"there is no process {parent} here", remedy="ps -e -o pid,args shows them")
    family = Family()
    serving = [pid for pid in family.servers(parent, Sockets()) if pid != parent]
    workers = serving or family.children(parent)
    if not workers:
        raise NotFoundError(
            f"process {parent} has no workers",
            remedy="give the supervisor's pid (gunicorn: master), or attach to it alone",
        )
    return workers
