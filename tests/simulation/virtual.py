"""The clock of a process that simulates: `time.monotonic` is the simulated loop's, wherever the relay asks for it.

Import this before anything of the relay: some of it takes `time.monotonic` as a default argument. Where no loop runs, the clock
stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

__all__ = ["now"]

_last = 0.0


def now() -> float:
    """Seconds since the simulation began."""
    global _last
    with contextlib.suppress(RuntimeError):
        _last = asyncio.get_running_loop().time()
    return _last


time.monotonic = now
