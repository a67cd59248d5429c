"""The response of GET /v1/topics/{topic}: one subscription, from the request to its end, which has exactly one outcome.

The law of this file is that of all streams without an upstream (stream/outgoing.py). An event is written to the client's
connection in the step in which it is published; while the connection has no room, events wait in the subscriber's buffer
(subscriber.py), whose overflow policy may end the subscription.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from diagnostics import StreamLedger, StreamRecord

from ..client.client import Client, client_of
from ..client.outside import OutsideResponse
from ..client.reply import Reply, Scope, Send
from ..errors import HubUnavailableError
from ..memory.buffer import OverflowPolicy
from ..stream.ending import Ending
from ..stream.outgoing import OutgoingLife
from ..stream.patience import Limits
from ..stream.sweep import OpenStreams
from .ids import parse_id
from .memory import Hub
from .subscriber import Subscriber
from .topic import Topic

__all__ = ["ERROR", "Subscription", "TopicStream"]

# The name of the last event, where the relay ends the subscription; publishers may use no name that begins with `relay.`.
ERROR: Final = "relay.error"
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
        with self._place:
            async with self._hub.topic(self._subscription.name) as topic:
                life = SubscriptionLife(self._subscription, topic, client_of(scope), self._limits, self._write_bytes)
                with (
                    self._hub.topics.listening(topic, life.subscriber),
                    self._ledger.stream(self._route, since=asked_at) as record,
                ):
                    opening = self._retry + self._place_of(topic) + b"\n"
                    reply = Reply(send, client_of(scope), record, opening=opening, error_event=ERROR)
                    await life.serve(record, reply, {}, self._open_streams, self._tell)

    def _place_of(self, topic: Topic) -> bytes:
        """The SSE `id` line that a new subscription begins with, so that even a client that has seen no event can resume."""
        return b"id: %d-%d\n" % topic.last if self._subscription.last_event_id is None else b""


class SubscriptionLife(OutgoingLife):
    """One subscription between its request and its end, which is the Owner of its Subscriber."""

    __slots__ = ("_dropped", "subscriber")

    def __init__(
        self, subscription: Subscription, topic: Topic, client: Client, limits: Limits, write_bytes: int
    ) -> None:
        super().__init__(client, limits, write_bytes)
        self.subscriber = Subscriber(topic, subscription.policy, subscription.capacity, self)
        if subscription.last_event_id is not None:
            self.subscriber.resume(
                parse_id(subscription.last_event_id), subscription.last_event_id[:QUOTED_ID_CHARACTERS]
            )
        self._dropped = 0  # the subscriber's, as the record has them

    # Called by the subscriber (subscriber.Owner)

    def wake(self) -> None:
        self._flow()

    def too_slow(self) -> None:
        self.end("slow_client")

    def abandoned(self) -> None:
        self.end("upstream_error", HubUnavailableError("connect again, to go on where this ends"))

    # Of OutgoingLife

    def _flow(self) -> None:
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

    def _leave(self) -> None:
        if self._record is not None:
            self._count(self._record)
        self.subscriber.leaves()

    def _count(self, record: StreamRecord) -> None:
        """Report the bytes that wait and the events that were dropped to the record."""
        subscriber = self.subscriber
        self._hold(subscriber.held + len(self._rest))
        if subscriber.dropped != self._dropped:
            dropped = subscriber.dropped - self._dropped
            record.received(0, dropped)
            record.dropped(dropped, subscriber.policy)
            self._dropped = subscriber.dropped
