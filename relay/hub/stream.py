"""The response of GET /v1/topics/{topic}: one subscription, from the request to its end, which has exactly one outcome.

The law of this file is that of a relayed stream (stream/life.py). An event is written to the client's connection in the step in
which it is published, as long as the connection has room; while it has none, events wait in the subscriber's buffer
(subscriber.py). The request's own task sleeps until the client, the sweep, the overflow policy or the shutdown ends the
subscription. A large event is written in pieces of `write_bytes`, so that the transport holds no more than the stream's budget
allows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from diagnostics import StreamLedger, StreamRecord

from ..client.client import Client, client_of
from ..client.outside import OutsideResponse
from ..client.reply import Reply, Scope, Send
from ..errors import ApiError, HubUnavailableError, ShuttingDownError, TooLongError
from ..memory.buffer import OverflowPolicy
from ..stream.ending import Ending
from ..stream.patience import Limits, Patience, Progress
from ..stream.sweep import OpenStreams
from .ids import parse_id
from .memory import Hub
from .subscriber import Subscriber
from .topic import Topic

__all__ = ["ERROR", "Subscription", "TopicStream"]

# The name of the last event, where the relay ends the subscription; publishers may use no name that begins with `relay.`.
ERROR: Final = "relay.error"
# The longest wait for the server to notice that a connection was aborted.
ABORTED_SECONDS: Final = 1.0
# A frame ends with its only blank line.
EVENT_END: Final = b"\n\n"
# The beginning of an event that the relay made for this subscriber alone: it was not published, and is not counted as one.
NOTICE: Final = b"event: relay."
# Of a subscriber's Last-Event-ID, the most that a gap event quotes.
QUOTED_ID_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscriber's request. `name` is the topic's; `capacity`: bytes of the buffer; `last_event_id`: the header, or None."""

    name: str
    policy: OverflowPolicy
    capacity: int
    last_event_id: str | None


class TopicStream(OutsideResponse):
    """The response of a subscription.

    place         the subscription's place at the gate (admission/gate.py), taken for as long as it lasts
    tell          called with the facts of the subscription's end
    retry         the SSE `retry` line, after which EventSource reconnects
    write_bytes   the most that one write gives to the connection
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        subscription: Subscription,
        *,
        route: str,
        hub: Hub,
        ledger: StreamLedger,
        open_streams: OpenStreams,
        place: AbstractContextManager[None],
        limits: Limits,
        tell: Callable[[Ending], None],
        retry: bytes,
        write_bytes: int,
    ) -> None:
        super().__init__()
        self._subscription = subscription
        self._route = route
        self._hub = hub
        self._ledger = ledger
        self._open_streams = open_streams
        self._place = place
        self._limits = limits
        self._tell = tell
        self._retry = retry
        self._write_bytes = write_bytes

    async def serve(self, scope: Scope, send: Send, asked_at: float) -> None:
        client = client_of(scope)
        with self._place:
            async with self._hub.topic(self._subscription.name) as topic:
                life = SubscriptionLife(self._subscription, topic, client, self._limits, self._write_bytes)
                with (
                    self._hub.topics.listening(topic, life.subscriber),
                    self._ledger.stream(self._route, since=asked_at) as record,
                ):
                    opening = self._retry + self._place_of(topic) + b"\n"
                    reply = Reply(send, client, record, opening=opening, error_event=ERROR)
                    await self._serve(life, client, record, reply)

    async def _serve(self, life: SubscriptionLife, client: Client, record: StreamRecord, reply: Reply) -> None:
        self._open_streams.add(life, resumable=True)
        outcome = "shutdown"  # where the server cancels the task, and `end` was not called
        try:
            client.listen(life)
            outcome = await life.live(record, reply)
            if not reply.complete:
                await client.gone(ABORTED_SECONDS)
        finally:
            client.listen(None)
            self._open_streams.discard(life)
            record.ends(outcome)
            life.over()
            self._tell(Ending.of(outcome, record=record, error=life.error))
            await reply.close()

    def _place_of(self, topic: Topic) -> bytes:
        """The SSE `id` line that a new subscription begins with, so that even a client that has seen no event can resume."""
        return b"id: %d-%d\n" % topic.last if self._subscription.last_event_id is None else b""


class SubscriptionLife:
    """One subscription between its request and its end: the Owner of its Subscriber, the Listener of its client, and swept."""

    __slots__ = (
        "_client", "_dropped", "_ending",  "_held", "_limits", "_patience", "_record", "_reply", "_rest",
        "_task", "_write_bytes", "error", "subscriber",
    )  # fmt: skip

    def __init__(
        self, subscription: Subscription, topic: Topic, client: Client, limits: Limits, write_bytes: int
    ) -> None:
        self.subscriber = Subscriber(topic, subscription.policy, subscription.capacity, self)
        if subscription.last_event_id is not None:
            self.subscriber.resume(
                parse_id(subscription.last_event_id), subscription.last_event_id[:QUOTED_ID_CHARACTERS]
            )
        self._client = client
        self._limits = limits
        self._write_bytes = write_bytes
        self._patience = Patience(limits, time.monotonic())
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._record: StreamRecord | None = None
        self._reply: Reply | None = None
        self._rest = b""  # the rest of an event whose beginning was written
        self._held = self._dropped = 0  # the subscriber's, as the record has them
        self._ending: str | None = None
        self.error: ApiError | None = None

    # Called by the subscriber (subscriber.Owner)

    def wake(self) -> None:
        self._flow()

    def too_slow(self) -> None:
        self.end("slow_client")

    def abandoned(self) -> None:
        self.end("upstream_error", HubUnavailableError("connect again, to go on where this ends"))

    # Called by the client's connection (client.client.Listener)

    def paused(self) -> None:
        if self._record is not None:
            self._record.waits()

    def resumed(self) -> None:
        if self._record is not None:
            self._record.goes_on()
        self._flow()

    def lost(self) -> None:
        if self._ending is None:
            if self._record is not None:
                self._record.disconnected()
            self.end("client_disconnected")

    # Called by the sweep and at shutdown

    def end(self, outcome: str, error: ApiError | None = None) -> None:
        """End the subscription with this outcome now; `error` is sent to the client. Does nothing where it has ended."""
        if self._ending is None and self._task is not None:
            self._ending, self.error = outcome, error
            if self._record is not None:
                self._record.ends(outcome)
            self._task.cancel()

    def look_after(self, now: float) -> None:
        """The sweep's look: enforce the time-outs, send a heartbeat if one is due. `now` in monotonic seconds."""
        record, reply = self._record, self._reply
        if record is None or reply is None or self._ending is not None:
            return
        progress = Progress(record.bytes_in, record.events_in, record.bytes_out, False, reply.unsent())
        match self._patience.look(now, progress):
            case "total":
                self.end("timeout", TooLongError(self._limits.total))
            case "write":
                self.end("slow_client")
            case "heartbeat" if not self._rest:
                record.sent(reply.beat())

    # Called by the response

    async def live(self, record: StreamRecord, reply: Reply) -> str:
        """Serve until `end` is called, then send the error or abort the connection. Returns the outcome."""
        try:
            await reply.start({})
            self._record, self._reply = record, reply
            self._flow()
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if self._ending is None:
                raise
            if self._task is not None:
                self._task.uncancel()
        if self._ending == "slow_client":
            reply.abort()
        elif self._ending != "client_disconnected":
            await reply.fail_or_abort(self.error or ShuttingDownError(), at_boundary=not self._rest)
        return str(self._ending)

    def over(self) -> None:
        """Drop the buffered events and leave the subscriber; from here on `end` does nothing."""
        self._task = self._reply = None
        self._rest = b""
        if self._record is not None:
            self._count(self._record)
            self._record.release(self._held)
            self._record = None
        self.subscriber.leaves()

    def _flow(self) -> None:
        """Write the events that wait to the client's connection, as long as it has room."""
        record, reply, client, size = self._record, self._reply, self._client, self._write_bytes
        if record is None or reply is None:
            return  # the response has not begun, or is over
        while self._ending is None and not client.full:
            chunk = self._rest
            if not chunk:
                chunk = self.subscriber.take(size)
                if not chunk:
                    break
                if not chunk.startswith(NOTICE):
                    record.received(len(chunk), chunk.count(EVENT_END))
            piece, self._rest = chunk[:size], chunk[size:]
            reply.write(piece)
            record.sent(len(piece), piece.count(EVENT_END))
        self._count(record)

    def _count(self, record: StreamRecord) -> None:
        """Report the bytes that wait and the events that were dropped to the record."""
        subscriber = self.subscriber
        held = subscriber.held + len(self._rest)
        if held != self._held:
            record.hold(held - self._held)
            self._held = held
        if subscriber.dropped != self._dropped:
            dropped = subscriber.dropped - self._dropped
            record.received(0, dropped)
            record.dropped(dropped, subscriber.policy)
            self._dropped = subscriber.dropped
