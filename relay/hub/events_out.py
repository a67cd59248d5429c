"""Events out: the facts of each stream that has ended, published to a topic, for whoever counts, bills or watches.

The law of this file: no stream waits for it. A stream leaves its facts in a queue and is gone; one task publishes what is in
the queue, and what finds the queue full is lost and counted. The facts are those of the log's line (ending.py) without its
message: numbers and fixed words, nothing that a caller or an upstream wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from ..errors import ApiError
from ..log import Throttle
from ..protocol.sse import encode
from ..stream.ending import Ending
from .memory import Hub

__all__ = ["STREAM_ENDED", "EventsOut"]

log = logging.getLogger("relay.events_out")

# The event's name. Publishers may use none that begins with `relay.`, so that it is the relay's word.
STREAM_ENDED: Final = "relay.stream_ended"
# Two seconds of a hub that does not answer, at 500 streams a second; half a mebibyte.
MAX_WAITING: Final = 1000
# What waits at the relay's end is given this long.
LAST_SECONDS: Final = 1.0
# The log is told of losses once in so many seconds.
QUIET_SECONDS: Final = 60.0


class EventsOut:
    """Publishes to `topic` of `hub` while it is `serving`. `lost`: events that were not published."""

    def __init__(
        self, hub: Hub, topic: str, *, max_waiting: int = MAX_WAITING, clock: Callable[[], float] = time.time
    ) -> None:
        self._hub = hub
        self._topic = topic
        self._clock = clock
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(max_waiting)
        self._throttle = Throttle(QUIET_SECONDS)
        self.lost = 0

    def ended(self, ending: Ending, trace_id: str | None) -> None:
        """A stream has ended."""
        facts = {"time": round(self._clock(), 3), **ending.fields()}
        facts.pop("error", None)
        if trace_id is not None:
            facts["trace_id"] = trace_id
        try:
            self._waiting.put_nowait(encode(json.dumps(facts, separators=(",", ":")), event=STREAM_ENDED))
        except asyncio.QueueFull:
            self._lose("the hub is too slow")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Publish for as long as the block runs, and what waits at its end."""
        task = asyncio.create_task(self._publish(), name="relay.events_out")
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await self._waiting.join()
            task.cancel()
            await asyncio.wait([task])

    async def _publish(self) -> None:
        while True:
            event = await self._waiting.get()
            try:
                await self._hub.publish(self._topic, event)
            except ApiError as error:
                self._lose(error.message)
            except Exception:
                # A bug that one event meets must not be the end of all; it is loud.
                log.exception("the end of a stream could not be published")
                self.lost += 1
            finally:
                self._waiting.task_done()

    def _lose(self, why: str) -> None:
        self.lost += 1
        if self._throttle.due():
            log.warning("ends of streams were not published", extra={"fields": {"lost": self.lost, "error": why}})
