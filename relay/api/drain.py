"""The shutdown of a relay, in states that only go forward.

| state | a new request | an open stream |
|---|---|---|
| `serving` | is served | goes on |
| `draining` | 503 | goes on; those whose clients can resume elsewhere are ended one by one, in the first half of the time |
| `ending` | 503 | gets an error event and is ended |

The drain lasts RELAY_DRAIN_SECONDS at most; a second signal cuts it short, and so does the server when no connection is left
(serving/server.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final, Literal

from ..stream.sweep import OpenStreams
from .requests import OpenAnswers

__all__ = ["FAREWELL_SECONDS", "Drain", "State"]

State = Literal["serving", "draining", "ending"]

# After the drain, for the last error events: each stream has half a second for its own (client/reply.py).
FAREWELL_SECONDS: Final = 0.8
# The share of the drain in which resumable streams are ended, spread out so that their clients do not reconnect all at once.
LET_GO_WITHIN: Final = 0.5


class Drain:
    """Ends the open streams and answers. `seconds` is how long they may go on after `begin`."""

    def __init__(self, seconds: float, streams: OpenStreams, answers: OpenAnswers) -> None:
        self.state: State = "serving"
        self._until = 0.0  # monotonic seconds
        self._forced: asyncio.Event | None = None
        self._seconds = seconds
        self._streams = streams
        self._answers = answers

    @property
    def begun(self) -> bool:
        return self.state != "serving"

    @property
    def seconds_left(self) -> float:
        """Of the time that was given; 0 after a second signal, and where no drain has begun."""
        if not self.begun or (self._forced is not None and self._forced.is_set()):
            return 0.0
        return max(self._until - time.monotonic(), 0.0)

    def begin(self) -> None:
        """Refuse new requests from now on."""
        if not self.begun:
            self.state = "draining"
            self._until = time.monotonic() + self._seconds

    async def run(self, forced: asyncio.Event) -> None:
        """Drain, end everything, and wait for the last error events; `forced` cuts the drain short."""
        self.begin()
        self._forced = forced
        letting_go = asyncio.create_task(self._let_go(), name="relay.drain.let_go")
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(forced.wait(), self._seconds)
        finally:
            letting_go.cancel()
            await asyncio.wait([letting_go])
        self.end_all()
        await asyncio.sleep(FAREWELL_SECONDS)

    def end_all(self) -> None:
        """End all open streams and answers now. Call it on the loop's thread."""
        self.state = "ending"
        self._streams.end_all()
        self._answers.end_all()

    async def _let_go(self) -> None:
        """End the resumable streams one by one."""
        streams = self._streams.resumable()
        for stream in streams:
            stream.end("shutdown")
            await asyncio.sleep(self._seconds * LET_GO_WITHIN / len(streams))
