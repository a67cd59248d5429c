"""A memray window: a Tracker between two calls, both on the agent's thread.

Entered on the loop's thread from an async handler almost no record has a Python stack; entered on another thread nearly
all have one. After the window the profile function that memray leaves on an uvloop thread is removed, or the service
stays two to three times slower.

memray writes `sys.argv` into the file, and people pass keys on command lines: `sys.argv` is replaced while the Tracker is
made.
"""

from __future__ import annotations

import sys

from ....errors import BusyError, TargetError
from ...loops.running import running_loops
from ...unpatched import start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Window"]


_INSTEAD = "take a tracemalloc capture, which needs no thread, or see why the service can start none"


def _must_start_threads() -> None:
    """Raises TargetError where no thread can be started: memray needs one, and without it stays half installed."""
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
    """The trial thread: only its start is tested."""


class Window:
    """One Tracker, active from construction until `close`.

    path               file to write; it must not exist
    aggregated         the small format (high-water, leaked); otherwise every allocation is written
    python_allocators  record single objects instead of pymalloc's 1 MiB arenas
    native             native stacks too; twice the cost

    Raises BusyError where another Tracker is active, TargetError where memray cannot begin. In either case no hook of this
    Tracker stays.
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

        # An active Tracker sets `threading.Thread._name`. Where it is set already, `__exit__` of ours would end the other one.
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
            # A Tracker installs its hooks before it fails, and leaves them.
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
