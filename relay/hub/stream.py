"""One subscription's life: GET /v1/topics/{topic}, from the request to the end that has a name.

The law of this file is that of a relayed stream (stream.py): the request's own task sends, one more watches for the client's
leaving, and whoever ends the subscription (the client, the sweep, its policy, the shutdown) does it by `end`, wherever it
waits. What waits for the client is bounded by its buffer; an event is cut into pieces as large as any relayed chunk, so that
the transport holds no more of it than a stream's budget says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from diagnostics import StreamLedger, StreamRecord

from ..buffer import Policy
from ..connection import transport_of
from ..errors import ApiError, HubUnavailableError, ShuttingDownError, TooLongError
from ..patience import Limits, Patience, Progress
from ..reply import Receive, Reply, Scope, Send
from ..sweep import OpenStreams
from .ids import parse_id
from .memory import Hub
from .subscriber import Subscriber
from .topic import Topic

__all__ = ["ERROR", "Subscription", "TopicStream"]

log = logging.getLogger("relay.hub")

# The last event of a subscription that the relay ends; a publisher may use no name that begins so.
ERROR: Final = "relay.error"
# How long the server takes to notice that a connection was given up.
ABORTED_SECONDS: Final = 1.0
# What is shown to a subscriber of what it sent.
WANTED_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a subscriber asks for. `wanted` is its Last-Event-ID, None where it has none; `capacity` in bytes."""

    name: str
    policy: Policy
    capacity: int
    wanted: str | None


class TopicStream(Response):
    """The response that is the subscription."""

    media_type = "text/event-stream"

    def __init__(
        self,
        asked: Subscription,
        *,
        route: str,
        hub: Hub,
        ledger: StreamLedger,
        open_streams: OpenStreams,
        place: AbstractContextManager[None],
        limits: Limits,
        retry: bytes,
        write_bytes: int,
    ) -> None:
        super().__init__()
        self._asked = asked
        self._route = route
        self._hub = hub
        self._ledger = ledger
        self._open_streams = open_streams
        self._place = place
        self._limits = limits
        self._retry = retry
        self._write_bytes = write_bytes
        self._patience = Patience(limits, time.monotonic())
        self._awake = asyncio.Event()
        self._subscriber: Subscriber | None = None
        self._record: StreamRecord | None = None
        self._reply: Reply | None = None
        self._task: asyncio.Task[Any] | None = None
        self._at_boundary = True
        self._held = self._dropped = 0  # of the subscriber's, as far as the record knows
        self._ending: str | None = None
        self._ending_error: ApiError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self._asked
        with self._place:
            async with self._hub.topic(asked.name) as topic:
                subscriber = Subscriber(topic, asked.policy, asked.capacity, self)
                opening = self._opening(subscriber, topic)
                with self._hub.topics.listening(topic, subscriber), self._ledger.stream(self._route) as record:
                    reply = Reply(send, transport_of(scope), opening=opening, error_event=ERROR)
                    self._subscriber, self._record, self._reply = subscriber, record, reply
                    await self._serve(receive, record, reply)

    # What the topic calls, by the subscriber

    def wake(self) -> None:
        self._count()
        self._awake.set()

    def too_slow(self) -> None:
        self.end("slow_client")

    def abandoned(self) -> None:
        self.end("upstream_error", HubUnavailableError("connect again, to go on where this ends"))

    # What the sweep and the shutdown call

    def end(self, outcome: str, error: ApiError | None = None) -> None:
        """End the subscription now, wherever it waits. Does nothing to one that has ended."""
        if self._ending is None and self._task is not None and self._record is not None:
            self._ending, self._ending_error = outcome, error
            self._record.ends(outcome)
            self._task.cancel()

    def look_after(self, now: float) -> None:
        record, reply = self._record, self._reply
        if record is None or reply is None or reply.complete or self._ending is not None:
            return
        progress = Progress(record.bytes_in, record.events_in, record.bytes_out, False, reply.unsent())
        match self._patience.look(now, progress):
            case "total":
                self.end("timeout", TooLongError(self._limits.total))
            case "write":
                self.end("slow_client")
            case "heartbeat" if self._at_boundary:
                reply.beat()

    async def _serve(self, receive: Receive, record: StreamRecord, reply: Reply) -> None:
        self._task = asyncio.current_task()
        self._open_streams.add(self)
        watcher = asyncio.create_task(self._watch(receive, record), name="relay.stream.watch")
        outcome = "shutdown"
        try:
            outcome = await self._live(record, reply)
            if not reply.complete:
                await asyncio.wait([watcher], timeout=ABORTED_SECONDS)
        finally:
            self._task = None
            self._open_streams.discard(self)
            record.ends(outcome)
            self._count()
            record.release(self._held)
            log.debug("subscription ended: outcome=%s events_out=%d", outcome, record.events_out)
            await reply.close()
            watcher.cancel()
            await asyncio.wait([watcher])
            # Each knows the other: without this, what the subscription held would wait for a garbage collection.
            self._subscriber = None

    async def _watch(self, receive: Receive, record: StreamRecord) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass  # a server may say more than once that the request's body is over
        if self._ending is None:
            record.disconnected()
            self.end("client_disconnected")

    async def _live(self, record: StreamRecord, reply: Reply) -> str:
        """Send until the end, and take leave as the reason for it allows. The outcome."""
        try:
            await self._pump(record, reply)
        except asyncio.CancelledError:
            if self._ending is None:
                raise
            assert self._task is not None
            self._task.uncancel()
        except OSError:
            record.disconnected()  # this is `send`, of a server that tells when its client is gone
            return "client_disconnected"
        outcome = str(self._ending)
        if outcome == "slow_client":
            reply.abort()
        elif outcome != "client_disconnected":
            await reply.part(self._ending_error or ShuttingDownError(), at_boundary=self._at_boundary)
        return outcome

    async def _pump(self, record: StreamRecord, reply: Reply) -> None:
        assert self._subscriber is not None
        await reply.start({})
        while self._ending is None:
            chunk = self._subscriber.take(self._write_bytes)
            self._count()
            if not chunk:
                self._awake.clear()
                await self._awake.wait()
                continue
            record.received(len(chunk), chunk.count(b"\n\n"))
            for piece in _pieces(chunk, self._write_bytes):
                self._at_boundary = piece.endswith(b"\n\n")
                await reply.chunk(piece)

    def _opening(self, subscriber: Subscriber, topic: Topic) -> bytes:
        """The first lines. They name the place where the subscription begins, so that even one without events can resume."""
        wanted = self._asked.wanted
        if wanted is None:
            return b"%bid: %d-%d\n\n" % (self._retry, *topic.last)
        subscriber.resume(parse_id(wanted), wanted[:WANTED_CHARACTERS])
        return self._retry and self._retry + b"\n"

    def _count(self) -> None:
        """Tell the record what waits and what was dropped since."""
        subscriber, record = self._subscriber, self._record
        if subscriber is None or record is None:
            return  # it is over: the topic tells those that it had at the beginning of its round
        if subscriber.held != self._held:
            record.hold(subscriber.held - self._held)
            self._held = subscriber.held
        if subscriber.dropped != self._dropped:
            dropped = subscriber.dropped - self._dropped
            record.received(0, dropped)
            record.dropped(dropped, subscriber.policy)
            self._dropped = subscriber.dropped


def _pieces(chunk: bytes, size: int) -> Iterator[bytes]:
    if len(chunk) <= size:
        yield chunk
        return
    for start in range(0, len(chunk), size):
        yield chunk[start : start + size]
