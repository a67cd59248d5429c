"""What this process's agent knows and watches between two questions."""

from __future__ import annotations

import time

from .lag import LoopLag
from .servers import Servers
from .windows import Windows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .ledger import StreamLedger

__all__ = ["State"]


class State:
    """Used from the agent's thread; `ledgers` is added to by apps that start.

    lag            of the service's loops, since the last window began
    last_fork      what the last forked reading cost: {"fork_seconds", "on_loop"}
    last_ending    what ending the last window cost, in seconds
    """

    def __init__(self) -> None:
        self.ledgers: list[StreamLedger] = []
        self.windows = Windows()
        self.lag = LoopLag()
        self.last_fork: dict[str, Any] | None = None
        self.last_ending: float | None = None
        self.servers = Servers()
        self.started = time.time()

    def begin_window(self) -> None:
        """Forget what was measured before."""
        self.lag.begin()
        self.last_fork = self.last_ending = None

    def end_window(self) -> float:
        """Close whatever window is open; returns the seconds that it took, in which no thread of the service ran."""
        self.lag.ping()  # waits in the loop while the window is closed, and so measures it
        self.last_ending = self.windows.end()
        return self.last_ending
