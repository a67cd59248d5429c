"""The sampled live heap: what of Python's memory is alive now, allocated whenever, by stack; kept all along.

A C extension (`../native/live/`) stands before Python's allocators and remembers, of every 512 KiB that are allocated, one
block on average, with its stack, until it is freed. The table lies in a file in the private folder,
`<root>/heap/<start>-<pid>.heap`, where the monitor reads it without asking the service, also after the service was killed
(`analysis/heap/table.py`).

`DIAGNOSTICS_HEAP` chooses: `on` hooks the allocators of objects and of Python's memory; `raw` only the one below them, which
serves blocks over 512 bytes, and costs nothing where objects are small; `off` and not set: nothing is hooked. Where it cannot
be had everything else works, and `report` says why.

The law of this file: nothing that goes wrong here is raised into the service.
"""

from __future__ import annotations

import os
import sys
import time

from ...errors import DiagnosticsError
from ...protocol import private_folder
from .. import at_fork
from . import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextvars import ContextVar
    from os import PathLike
    from types import ModuleType
    from typing import Any

__all__ = ["FOLDER", "begin", "end", "extension", "keep", "know_routes", "report", "settle"]

FOLDER = "heap"
DEFAULT_RATE = 512 * 1024
_LEAST_RATE, _MOST_RATE = 1024, 1 << 40
# Tables of processes that have ended, each of 3 MiB: what a service that is restarted again and again leaves.
_KEPT_FILES = 8


class _Here:
    """This process's heap.

    mode     on, raw or off
    reason   why it is off, or without a file
    held     the file's descriptor, its inode, and the process that made it
    variable what a stream's record is found by; no_route: why samples have no route of a stream
    """

    def __init__(self) -> None:
        self.mode = "off"
        self.rate = DEFAULT_RATE
        self.reason: str | None = None
        self.path: str | None = None
        self.held: tuple[int, int, int] | None = None
        self.lost = False
        self.variable: ContextVar[Any] | None = None
        self.no_route: str | None = "no ledger of streams is kept"


_here = _Here()


def extension() -> ModuleType | None:
    """The C part, None where it has not been built or does not load: `begin` says so."""
    try:
        from . import _live
    except ImportError:
        return None
    return _live


def begin() -> str | None:
    """Sample from now on, as the environment asks for; says why not where it asked and that cannot be. Once is enough."""
    if _here.mode != "off":
        return None
    try:
        mode, rate = _settings()
        _here.reason = None if mode == "off" else _begin(mode, rate)
    except (DiagnosticsError, ValueError, OSError, TypeError) as error:
        _here.reason = str(error)
    return _here.reason


def _settings() -> tuple[str, int]:
    """Raises ValueError for a setting that is none."""
    mode = os.environ.get("DIAGNOSTICS_HEAP") or "off"
    if mode not in ("on", "raw", "off"):
        raise ValueError(f"DIAGNOSTICS_HEAP is {mode!r}; choose on, raw or off")
    rate_text = os.environ.get("DIAGNOSTICS_HEAP_RATE") or str(DEFAULT_RATE)
    rate = int(rate_text) if rate_text.isdecimal() else 0
    if not _LEAST_RATE <= rate <= _MOST_RATE:
        raise ValueError(f"DIAGNOSTICS_HEAP_RATE is {rate_text!r}; choose {_LEAST_RATE} to {_MOST_RATE} (bytes)")
    return mode, rate


def _begin(mode: str, rate: int) -> str | None:
    why = layout.why_not()
    if why is not None:
        return why
    try:
        from . import _live
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        return (
            "its extension was not built: install highwater-diagnostics where a C compiler and Python's headers are"
            if missing
            else f"its extension does not load: {error}"
        )
    why = _verified(_live) or _live.start(mode == "raw", rate, _start_ticks())
    if why is None:
        _here.mode, _here.rate, _here.lost = mode, rate, False
    return why


def _verified(live: Any) -> str | None:
    """Whether frames are where they are expected, as seen from a function, a generator and a class's body."""

    def here() -> str | None:
        # On one line: the line that Python tells of this frame is then the one of the call.
        why: str | None = live.lay_out(layout.offsets(), *layout.frames(sys._getframe()))
        return why

    class Body:
        why = here()

    why = here() or next(here() for _ in (1,)) or Body.why
    return f"the frames of this Python are not laid out as expected ({why})" if why else None


def know_routes(variable: ContextVar[Any]) -> ModuleType | None:
    """What to tell of streams that are opened and closed (`opened(record, route)`, `closed(record)`), so that samples have
    their route; `variable` is a record in the context of its stream. None where samples have none, which `report` says."""
    live = extension() if _here.mode != "off" else None
    if live is None or _here.variable not in (None, variable):  # of another copy of the package: it came first
        return None
    if _here.variable is None:
        from . import routes

        _here.variable = variable
        raw = "with DIAGNOSTICS_HEAP=raw samples have none"
        _here.no_route = raw if _here.mode == "raw" else routes.begin(live, variable)
    return live if _here.no_route is None else None


def keep(root: str | PathLike[str]) -> str | None:
    """Keep the table in a file below `root` from now on; says why that cannot be. Sampling goes on in memory then."""
    _let_go_of_parents()  # another hook of the fork may call this before ours has run
    if _here.mode == "off" or _here.path is not None:
        return _here.reason
    live = extension()
    if live is None:
        return _here.reason
    folder = os.path.join(root, FOLDER)
    try:
        private_folder(root)
        private_folder(folder)
        _tidy(folder)
        started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = os.path.join(folder, f"{started}-{os.getpid()}.heap")
        fd = _file(path)
    except (DiagnosticsError, OSError) as error:
        _here.reason = f"its table is not in a file: {error}"
        return _here.reason
    why = live.attach(fd, _start_ticks())
    if why is not None:
        os.close(fd)
        os.unlink(path)
        _here.reason = f"its table is not in a file: {why}"
        return _here.reason
    _here.path, _here.held, _here.reason = path, (fd, os.fstat(fd).st_ino, os.getpid()), None
    return None


def _file(path: str) -> int:
    """A new file, locked for as long as this process has it. Raises OSError."""
    import fcntl

    if os.path.lexists(path):  # begun and ended within a second
        os.unlink(path)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # a file system without locks: who tidies may take it for one that was left
        pass
    return fd


def _tidy(folder: str) -> None:
    """Leave the last few tables of processes that have ended."""
    import fcntl

    ended = []
    for name in sorted(os.listdir(folder), reverse=True):
        if not name.endswith(".heap"):
            continue
        path = os.path.join(folder, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # removed meanwhile
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            ended.append(path)
        except OSError:  # its process lives
            pass
        finally:
            os.close(fd)
    for path in ended[_KEPT_FILES - 1 :]:
        try:
            os.unlink(path)
        except OSError:  # removed meanwhile
            pass


def report() -> dict[str, Any] | None:
    """What the agent says of it; None where nobody asked for it.

    mode            on, raw or off
    reason          why it is off, lost, or has no file; else None
    lost            something else has taken the hooks out since: what is alive is not known any more
    file            where its table lies
    no_route        why samples have no route of a stream; None: those have one that are taken in one
    private_bytes   what it takes of this process's own memory; the file's pages are counted as a mapped file's
    samples, dropped, blocks, sites   taken so far, of which did not fit, alive now, stacks
    """
    if _here.mode == "off":
        return None if _here.reason is None else {"mode": "off", "reason": _here.reason, "file": None}
    live = extension()
    if live is None:
        return None
    if not live.check():
        _here.lost = True
    facts = live.status()
    reason = _here.reason
    if _here.lost:
        reason = "another tool has taken its hooks out of Python's allocators; start the process anew to have it again"
    return {
        "mode": _here.mode,
        "rate_bytes": _here.rate,
        "reason": reason,
        "lost": _here.lost,
        "file": _here.path,
        "no_route": _here.no_route,
        **{key: facts[key] for key in ("samples", "dropped", "unseen_frees", "blocks", "sites", "private_bytes")},
    }


def settle() -> None:
    """The process ends: take no more samples, while its frames come apart. The file stays, with all that is alive now."""
    live = extension() if _here.mode != "off" else None
    if live is not None:
        live.settle()
        live.detach()


def end() -> None:
    """Take the hooks out where they are on top, else let all pass through them; forget the table. The file stays."""
    live = extension() if _here.mode != "off" else None
    if live is not None:
        live.stop()
    _let_go()
    _here.mode = "off"


def _let_go() -> None:
    held, _here.held, _here.path = _here.held, None, None
    if held is None:
        return
    fd, inode, _ = held
    try:
        if os.fstat(fd).st_ino == inode:  # else the service has closed it, as daemons do, and the number is another's
            os.close(fd)
    except OSError:
        pass


def _start_ticks() -> int:
    """When this process was started, as the kernel counts (proc(5), field 22); 0 where that is not to be had."""
    try:
        with open("/proc/self/stat", encoding="utf-8") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _let_go_of_parents() -> None:
    """In a forked child, which goes on sampling in its own copy of the table: the file is its parent's."""
    if _here.held is not None and _here.held[2] != os.getpid():
        _let_go()


at_fork.register(owner=__package__.rpartition(".")[0], after_in_child=_let_go_of_parents)
