"""The end of a relay, step by step. It goes forward only.

| state | a new request | an open stream |
|---|---|---|
| `serving` | is served | goes on |
| `draining` | 503 | goes on; those who can go on elsewhere are ended one by one, in the first half of the time |
| `ending` | 503 | is told with an error event and ended |

Draining lasts RELAY_DRAIN_SECONDS at most, and as long as there are open streams; a second signal cuts it short. That it
is over is the server's to see (server.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Literal

from ..stream.sweep import OpenStreams
from .requests import OpenAnswers

__all__ = ["FAREWELL_SECONDS", "Drain", "State"]

State = Literal["serving", "draining", "ending"]

# After the drain each stream says good-bye, within half a second.
FAREWELL_SECONDS: Final = 0.8
# Of the drain: those who can go on elsewhere should not all come there at once.
LET_GO_WITHIN: Final = 0.5


class Drain:
    """Ends what is open. `seconds` is how long it may go on."""

    def __init__(self, seconds: float, streams: OpenStreams, answers: OpenAnswers) -> None:
        self.state: State = "serving"
        self._seconds = seconds
        self._streams = streams
        self._answers = answers

    @property
    def begun(self) -> bool:
        return self.state != "serving"

    def begin(self) -> None:
        """Let nothing new in."""
        if not self.begun:
            self.state = "draining"

    async def run(self, forced: asyncio.Event) -> None:
        """From `draining` to the end of all farewells; `forced` cuts it short."""
        self.begin()
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
        """End everything that is still open, now. Call it on the loop's thread."""
        self.state = "ending"
        self._streams.end_all()
        self._answers.end_all()

    async def _let_go(self) -> None:
        streams = self._streams.resumable()
        for stream in streams:
            stream.end("shutdown")
            await asyncio.sleep(self._seconds * LET_GO_WITHIN / len(streams))
