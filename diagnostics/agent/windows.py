"""The one tracer window that may be open in a process, and the promise that it always ends.

tracemalloc and memray slow a service down while they trace. A window therefore has a deadline: if the monitor that opened it
dies, the agent closes the window.
"""

from __future__ import annotations

import time

from ..errors import BusyError, TargetError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["GRACE_SECONDS", "MAX_FRAMES", "Windows"]

# The agent closes a window that no request has closed this long after its announced end.
GRACE_SECONDS = 15.0
MAX_FRAMES = 25


class _Open:
    __slots__ = ("began", "close", "deadline", "kind")

    def __init__(self, kind: str, began: float, deadline: float, close: Callable[[], None]) -> None:
        self.kind = kind
        self.began = began
        self.deadline = deadline
        self.close = close


class Windows:
    """Opens and closes tracer windows; used from the agent's thread only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: _Open | None = None

    @property
    def kind(self) -> str | None:
        """The kind of the open window; None where none is open."""
        return self._open.kind if self._open else None

    @property
    def current(self) -> object | None:
        """The open window, an opaque object that tells it from a later one; None where none is open."""
        return self._open

    def begin_tracemalloc(self, *, seconds: float, frames: int) -> dict[str, Any]:
        self._must_be_free("tracemalloc")
        if not 1 <= frames <= MAX_FRAMES:
            raise UsageError(f"frames is {frames}", remedy=f"choose 1 to {MAX_FRAMES}")
        from .readings.allocation import tracemalloc

        ours = tracemalloc.begin(frames)
        self._opened("tracemalloc", seconds, tracemalloc.end if ours else _nothing)
        return {"already_tracing": not ours}

    def begin_memray(
        self, *, path: str, seconds: float, aggregated: bool, python_allocators: bool, native: bool
    ) -> dict[str, Any]:
        self._must_be_free("memray")
        from .readings.allocation import installed, memray

        if not installed.has_memray():
            raise TargetError(
                "the service's environment has no memray",
                remedy="pip install memray in the service's environment, or take a tracemalloc capture",
                code="memray_missing",
            )
        window = memray.Window(path, aggregated=aggregated, python_allocators=python_allocators, native=native)
        self._opened("memray", seconds, window.close)
        return {}

    def age(self, kind: str) -> float:
        """Seconds since the window of this kind began. Raises TargetError where there is none."""
        if self._open is None or self._open.kind != kind:
            raise TargetError(
                f"no {kind} window is open in this process",
                remedy="it was closed at its deadline or cancelled; take the capture again",
                code="no_window",
            )
        return self._clock() - self._open.began

    def end(self) -> float:
        """Close the open window; returns the seconds that closing took, 0 where none was open."""
        window, self._open = self._open, None
        if window is None:
            return 0.0
        began = self._clock()
        window.close()
        return self._clock() - began

    def end_overdue(self) -> str | None:
        """Close the window if its deadline has passed; returns its kind, None where nothing was closed."""
        if self._open is None or self._clock() < self._open.deadline:
            return None
        kind = self._open.kind
        self.end()
        return kind

    def _must_be_free(self, kind: str) -> None:
        if self._open is not None:
            raise BusyError(
                f"a {self._open.kind} window is open in this process, so no {kind} window can be",
                remedy="wait for it to end, or cancel its capture",
            )

    def _opened(self, kind: str, seconds: float, close: Callable[[], None]) -> None:
        now = self._clock()
        self._open = _Open(kind, now, now + seconds + GRACE_SECONDS, close)


def _nothing() -> None:
    """The close function of a window in which the service itself traces: its tracer stays on."""
