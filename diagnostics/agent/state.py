"""The agent's state between requests."""

from __future__ import annotations

import os
import sys
import time

from .loops.asyncio_tasks import task_count, task_states, why_unseen
from .loops.lag import LoopLag
from .loops.running import RunningLoops
from .reading_cache import ReadingCache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .ledger import StreamLedger
    from .readings.newness import FirstLook
    from .servers import Servers
    from .servers.snapshot import ServerLook
    from .windows import Windows

__all__ = ["State"]


class State:
    """Used from the agent's thread; `ledgers` is added to by apps that start.

    lag            of the service's loops, its maximum since the last window began
    loops, task_count, task_states, look   functions; their results are cached where there are thousands of tasks or streams
    first_look     marks of the last census with `first`, until `explain` has read them
    last_fork      cost of the last forked reading: {"fork_seconds", "fork_cpu_seconds", "on_loop"}
    leave          function that ends an agent which was put into a running process; None for other agents
    leaving        whether the operation "leave" was requested
    troubles       failures of the agent itself: {"count", "last"}, the last one as a sentence
    last_ending, last_ending_cpu   wall-clock and CPU seconds that ending the last window took
    """

    def __init__(self) -> None:
        self.ledgers: list[StreamLedger] = []
        self._windows: Windows | None = None
        self.loops = RunningLoops()
        self.lag = LoopLag(loops=self.loops)
        # Drawn in a graph: with thousands of tasks they may be a few seconds old.
        self.task_count = ReadingCache(task_count, share=1000, longest=5.0)
        self.task_states = ReadingCache(task_states, share=1000, longest=5.0)
        self.last_fork: dict[str, Any] | None = None
        self.last_ending: float | None = None
        self.last_ending_cpu: float | None = None
        self._servers: Servers | None = None
        self.look = ReadingCache(self._look)
        self.started = time.time()
        self.first_look: FirstLook | None = None
        self.leave: Callable[[], None] | None = None
        self.leaving = False
        self.troubles: dict[str, Any] = {"count": 0, "last": None}

    @property
    def servers(self) -> Servers:
        """The servers of this process; the search begins with the first request."""
        if self._servers is None:
            from .servers import Servers

            self._servers = Servers()
        return self._servers

    @property
    def windows(self) -> Windows:
        """The tracer windows of this process; loaded with the first one."""
        if self._windows is None:
            from .windows import Windows

            self._windows = Windows()
        return self._windows

    @property
    def window_kind(self) -> str | None:
        """The kind of the tracer window that is open; None where none is."""
        return None if self._windows is None else self._windows.kind

    def trouble(self, what: str) -> None:
        """Note a failure of the agent, a sentence: it is reported to the monitor with the next reading."""
        self.troubles = {"count": self.troubles["count"] + 1, "last": what}

    def remember(self, first: FirstLook | None) -> None:
        """Keep the marks of a first census for `explain`; None drops them."""
        if self.first_look is not None:
            self.first_look.close()
        self.first_look = first

    def begin_window(self) -> None:
        """Reset the figures of the window before."""
        self.lag.begin()
        self.last_fork = self.last_ending = self.last_ending_cpu = None

    def end_window(self) -> float:
        """Close the open window, if any; returns the seconds that closing took, during which all threads were stalled."""
        self.lag.ping()  # queued in the loop while the window is closed, and so measures that stall
        began = time.thread_time()
        self.last_ending = self.windows.end()
        self.last_ending_cpu = time.thread_time() - began
        return self.last_ending

    def unknown(self) -> dict[str, str]:
        """Readings that this process cannot make: the reading's name -> why."""
        reasons: dict[str, str] = {}
        unseen = why_unseen()
        if unseen is not None:
            reasons["tasks"] = reasons["loop_lag"] = unseen
        if "t" in getattr(sys, "abiflags", ""):
            reasons["python_live"] = "a free-threaded build of Python allocates by mimalloc, whose figures are not read"
        if self._servers is not None and self._servers.unseen is not None:
            reasons["connections"] = self._servers.unseen
        return reasons

    def heap(self) -> dict[str, Any] | None:
        """The report on the sampled heap (see `heap.report`); None where DIAGNOSTICS_HEAP is off."""
        if os.environ.get("DIAGNOSTICS_HEAP", "off") == "off":
            return None
        from . import heap

        return heap.report()

    def _look(self) -> ServerLook | None:
        return self.servers.look(self.ledgers)
