"""What this process's agent knows and watches between two questions."""

from __future__ import annotations

import sys
import time

from .loops.asyncio_tasks import task_count, task_states, why_unseen
from .loops.lag import LoopLag
from .loops.running import RunningLoops
from .thrift import Thrifty
from .windows import Windows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .ledger import StreamLedger
    from .readings.newness import FirstLook
    from .servers import Servers
    from .servers.looks import Look

__all__ = ["State"]


class State:
    """Used from the agent's thread; `ledgers` is added to by apps that start.

    lag            of the service's loops, since the last window began
    loops, task_count, task_states, look   as of now, or of a moment ago where there are thousands of streams
    first_look     what the last first census marked, until it is asked for
    last_fork      what the last forked reading cost: {"fork_seconds", "fork_cpu_seconds", "on_loop"}
    leave          what ends an agent that was put into a running process; None for others, which stay
    leaving        whether it was told to
    troubles       how often something went wrong in the agent itself, and what did last: {"count", "last"}
    last_ending, last_ending_cpu   what ending the last window cost: seconds on the clock, and of CPU time
    """

    def __init__(self) -> None:
        self.ledgers: list[StreamLedger] = []
        self.windows = Windows()
        self.loops = RunningLoops()
        self.lag = LoopLag(loops=self.loops)
        # Numbers for a graph: they may be a few seconds old where there are thousands of tasks.
        self.task_count = Thrifty(task_count, share=1000, longest=5.0)
        self.task_states = Thrifty(task_states, share=1000, longest=5.0)
        self.last_fork: dict[str, Any] | None = None
        self.last_ending: float | None = None
        self.last_ending_cpu: float | None = None
        self._servers: Servers | None = None
        self.look = Thrifty(self._look)
        self.started = time.time()
        self.first_look: FirstLook | None = None
        self.leave: Callable[[], None] | None = None
        self.leaving = False
        self.troubles: dict[str, Any] = {"count": 0, "last": None}

    @property
    def servers(self) -> Servers:
        """The servers of this process, looked for from the first question on."""
        if self._servers is None:
            from .servers import Servers

            self._servers = Servers()
        return self._servers

    def trouble(self, what: str) -> None:
        """Note what went wrong in the agent: the service is not told, the monitor is, with the next reading."""
        self.troubles = {"count": self.troubles["count"] + 1, "last": what}

    def remember(self, first: FirstLook | None) -> None:
        """Keep the marks of a first look until the second one is through; None forgets them."""
        if self.first_look is not None:
            self.first_look.close()
        self.first_look = first

    def begin_window(self) -> None:
        """Forget what was measured before."""
        self.lag.begin()
        self.last_fork = self.last_ending = self.last_ending_cpu = None

    def end_window(self) -> float:
        """Close whatever window is open; returns the seconds that it took, in which no thread of the service ran."""
        self.lag.ping()  # waits in the loop while the window is closed, and so measures it
        began = time.thread_time()
        self.last_ending = self.windows.end()
        self.last_ending_cpu = time.thread_time() - began
        return self.last_ending

    def unknown(self) -> dict[str, str]:
        """What this process should tell and does not: the reading's name -> why. Unknown is not zero, and not none."""
        found: dict[str, str] = {}
        unseen = why_unseen()
        if unseen is not None:
            found["tasks"] = found["loop_lag"] = unseen
        if "t" in getattr(sys, "abiflags", ""):
            found["python_live"] = "a free-threaded build of Python allocates by mimalloc, whose figures are not read"
        if self._servers is not None and self._servers.unseen is not None:
            found["connections"] = self._servers.unseen
        return found

    def _look(self) -> Look | None:
        return self.servers.look(self.ledgers)
