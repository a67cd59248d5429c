"""Publishes the facts of each stream that has ended to a topic, for programs that count, bill or monitor.

The law of this file: no stream waits for it. A stream puts its facts into a bounded queue; one task publishes them, and facts
that find the queue full are dropped and counted. The facts are those of the stream's log line (stream/ending.py) without the
error's message: numbers and fixed words, no text of a caller or an upstream.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from ..errors import ApiError
from ..log import Throttle
from ..protocol.sse import encode
from ..stream.ending import Ending
from .memory import Hub

__all__ = ["STREAM_ENDED", "EventsOut"]

log = logging.getLogger("relay.events_out")

# The event's name. Publishers may use no name that begins with `relay.`, so only the relay can have sent it.
STREAM_ENDED: Final = "relay.stream_ended"
# Events in the queue: enough for a hub that does not answer for two seconds at 500 streams a second; half a mebibyte.
MAX_WAITING: Final = 1000
# The longest wait at shutdown for the queue to drain.
LAST_SECONDS: Final = 1.0
# Dropped events are logged at most once in this time.
QUIET_SECONDS: Final = 60.0


class EventsOut:
    """Publishes to `topic` of `hub` while `serving` runs. `clock`: seconds since 1970.

    counts   events by their outcome: `delivered`, `queue_full`, `refused` by the hub, or still waiting at the `shutdown`
    """

    def __init__(
        self, hub: Hub, topic: str, *, max_waiting: int = MAX_WAITING, clock: Callable[[], float] = time.time
    ) -> None:
        self._hub = hub
        self._topic = topic
        self._clock = clock
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(max_waiting)
        self._throttle = Throttle(QUIET_SECONDS)
        self._bytes = 0
        self.counts: Counter[str] = Counter({"delivered": 0})

    @property
    def lost(self) -> int:
        """How many events were not published."""
        return self.counts.total() - self.counts["delivered"]

    def statistics(self) -> dict[str, Any]:
        """`waiting` events, the `bytes` that are held for them, and all `outcomes` so far. Called from any thread."""
        return {"waiting": self._waiting.qsize(), "bytes": self._bytes, "outcomes": dict(self.counts)}

    def ended(self, ending: Ending, trace_id: str | None) -> None:
        """Queue the event of a stream that has ended. Never waits."""
        facts = {"time": round(self._clock(), 3), **ending.fields()}
        facts.pop("error", None)
        if trace_id is not None:
            facts["trace_id"] = trace_id
        event = encode(json.dumps(facts, separators=(",", ":")), event=STREAM_ENDED)
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:
            self._lose("queue_full", "the hub is too slow")
        else:
            self._bytes += len(event)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Publish for as long as the `with` block runs, then the rest of the queue, for LAST_SECONDS at most."""
        task = asyncio.create_task(self._publish(), name="relay.events_out")
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await self._waiting.join()
            task.cancel()
            await asyncio.wait([task])
            if not self._waiting.empty():
                self.counts["shutdown"] += self._waiting.qsize()
            if self.counts["shutdown"]:
                fields = {"lost": self.counts["shutdown"]}
                log.warning("ends of streams were not published before the shutdown", extra={"fields": fields})

    async def _publish(self) -> None:
        while True:
            event = await self._waiting.get()
            try:
                await self._hub.publish(self._topic, event)
                self.counts["delivered"] += 1
            except ApiError as error:
                self._lose("refused", error.message)
            except asyncio.CancelledError:
                self.counts["shutdown"] += 1
                raise
            except Exception:
                # A bug that one event meets must not stop the events of all other streams.
                log.exception("the end of a stream could not be published")
                self.counts["refused"] += 1
            finally:
                self._bytes -= len(event)
                self._waiting.task_done()

    def _lose(self, outcome: str, why: str) -> None:
        self.counts[outcome] += 1
        if self._throttle.due():
            log.warning("ends of streams were not published", extra={"fields": {"lost": self.lost, "error": why}})
