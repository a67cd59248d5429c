"""Whether the relay has let go of a client that reads nothing: only the kernel can tell."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from pathlib import Path

from .mix import Wrong

__all__ = ["PATIENCE_SECONDS", "let_go"]

# What the relay may take to give up a client, on a busy machine; its own limits are a few seconds (relay.py).
PATIENCE_SECONDS = 45.0 * float(os.environ.get("CHAOS_PATIENCE", "1"))
TIME_WAIT = "06"


class Kernel:
    """The kernel's table of connections. It has thousands of lines where many clients were: one reading serves all who ask."""

    FRESH_SECONDS = 0.5

    def __init__(self) -> None:
        self._there: set[tuple[int, int]] = set()
        self._read_at = -1e9

    def has(self, made: socket.socket) -> bool:
        """Whether the relay's end is still there; the kernel keeps it for what was not taken before it was closed."""
        try:
            ends = made.getpeername()[1], made.getsockname()[1]
        except OSError:  # it was reset, and closed here
            return False
        # What is not in it may have been made since it was read.
        if ends not in self._there or time.monotonic() - self._read_at > self.FRESH_SECONDS:
            self._read()
        return ends in self._there

    def _read(self) -> None:
        self._read_at = time.monotonic()
        self._there.clear()
        for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]:
            fields = line.split()
            if fields[3] != TIME_WAIT:
                self._there.add((int(fields[1].rpartition(":")[2], 16), int(fields[2].rpartition(":")[2], 16)))


kernel = Kernel()


async def let_go(writer: asyncio.StreamWriter) -> None:
    """Wait until the relay ends the connection, without reading it. A kernel that gives up does not say so."""
    made: socket.socket = writer.get_extra_info("socket")
    if writer.is_closing():
        return
    poll = select.poll()
    poll.register(made.fileno(), select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE_SECONDS
    while not writer.is_closing() and not poll.poll(0) and kernel.has(made):
        if loop.time() > until:
            raise Wrong(f"the relay has kept the connection for {PATIENCE_SECONDS:g} s")
        await asyncio.sleep(0.2)
