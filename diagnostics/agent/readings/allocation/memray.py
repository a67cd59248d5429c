"""A memray window: a Tracker between two calls, both on the agent's thread.

Entered on the loop's thread from an async handler almost no record has a Python stack; entered on another thread nearly
all have one. After the window the profile function that memray leaves on an uvloop thread is taken off, or the service
stays two to three times slower.

memray writes `sys.argv` into the file, and people pass keys on command lines: it is shown another one for the moment in
which it looks.
"""

from __future__ import annotations

import os
import sys

from ....errors import BusyError, TargetError
from ...loops.running import running_loops
from ...unpatched import start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Window", "about", "available"]


_INSTEAD = "take a tracemalloc capture, which needs no thread, or see why the service can start none"


def _must_start_threads() -> None:
    """memray needs a thread of its own, and without one it is left half on. Raises TargetError where none can be started."""
    try:
        start_new_thread(_nothing, ())
    except RuntimeError as error:
        raise TargetError(
            f"the service can start no new thread, which memray needs: {error}; its user, its cgroup or its address space is "
            "at a limit (RLIMIT_NPROC, pids.max, RLIMIT_AS)",
            remedy=_INSTEAD,
            code="no_thread",
        ) from error


def _nothing() -> None:
    """A thread that has been started has done all that it is for."""


def available() -> bool:
    """Whether this process can import memray; finds out without importing it."""
    if sys.modules.get("memray") is not None:
        return True
    from importlib.util import find_spec

    return find_spec("memray") is not None


def about() -> dict[str, Any]:
    """Which memray this process has and where, for whoever is to read its files; found out without importing it."""
    if not available():
        return {"memray": False, "memray_version": None, "memray_folder": None}
    loaded = sys.modules.get("memray")
    if loaded is None:
        from importlib.util import find_spec

        spec = find_spec("memray")
        origin = spec.origin if spec is not None else None
    else:
        origin = loaded.__file__
    folder = os.path.dirname(origin or "")
    return {"memray": True, "memray_version": _version(folder), "memray_folder": os.path.dirname(folder)}


def _version(folder: str) -> str | None:
    try:
        with open(os.path.join(folder, "_version.py"), encoding="utf-8") as file:
            words = file.read().split()  # __version__ = "1.2.3"
    except OSError:
        return None
    return next((word.strip("\"'") for word in words if word[:1] in "\"'" and word[1:2].isdecimal()), None)


class Window:
    """One Tracker, open from its making until `close`.

    path               file to write; it must not exist
    aggregated         the small format (high-water, leaked); otherwise every allocation is written
    python_allocators  see single objects instead of pymalloc's 1 MiB arenas
    native             native stacks too; twice the cost

    Raises BusyError where another Tracker is active, TargetError where memray cannot begin. In either case nothing of this one
    is left on.
    """

    def __init__(self, path: str, *, aggregated: bool, python_allocators: bool, native: bool) -> None:
        import memray

        _must_start_threads()
        formats = memray.FileFormat
        words, sys.argv = sys.argv, ["(command", "line", "left", "out)"]
        try:
            self._tracker: Any = memray.Tracker(
                path,
                native_traces=native,
                trace_python_allocators=python_allocators,
                file_format=formats.AGGREGATED_ALLOCATIONS if aggregated else formats.ALL_ALLOCATIONS,
            )
        finally:
            sys.argv = words
        self._enter()

    def _enter(self) -> None:
        import threading

        # A Tracker marks the class of threads. Where it is marked already, another's is active: to leave ours would end that.
        marked = "_name" in vars(threading.Thread)
        try:
            self._tracker.__enter__()
        except BaseException as error:
            if marked or "more than one Tracker" in str(error):
                raise BusyError(
                    f"memray refuses a second tracker in this process: {error}",
                    remedy="read the capture that `memray run` makes, or start the service without it",
                    code="tracker_active",
                ) from error
            # It has put its hooks in place before it failed, and does not take them back.
            self._tracker.__exit__(None, None, None)
            if isinstance(error, Exception):
                raise TargetError(
                    f"memray could not begin: {type(error).__name__}: {error}", remedy=_INSTEAD, code="memray_failed"
                ) from error
            raise

    def close(self) -> None:
        """End the window and write the file; stalls all threads up to 0.1 s per million live blocks."""
        self._tracker.__exit__(None, None, None)
        for loop in running_loops():
            loop.call_soon_threadsafe(sys.setprofile, None)
