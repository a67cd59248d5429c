"""One subscription's life: GET /v1/topics/{topic}, from the request to the end that has a name.

The law of this file is that of a relayed stream (stream/life.py). An event goes to the client's connection in the step in
which it is published, as long as the connection has room; while it has none, events wait in the subscriber's buffer
(subscriber.py). The request's own task sleeps until whoever ends the subscription does so: the client, the sweep, the policy,
the shutdown. An event is cut into pieces as large as any relayed chunk, so that the transport holds no more than a stream's
budget says.
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

# The last event of a subscription that the relay ends; a publisher may use no name that begins so.
ERROR: Final = "relay.error"
# How long the server takes to notice that a connection was given up.
ABORTED_SECONDS: Final = 1.0
# A frame ends with a blank line, and has none before.
EVENT_END: Final = b"\n\n"
# How an event begins that tells the subscriber about itself: nobody published it.
NOTICE: Final = b"event: relay."
# What is shown to a subscriber of what it sent.
WANTED_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a subscriber asks for. `wanted` is its Last-Event-ID, None where it has none; `capacity` in bytes."""

    name: str
    policy: OverflowPolicy
    capacity: int
    wanted: str | None


class TopicStream(OutsideResponse):
    """The response that is the subscription.

    tell    is told how it ended
    retry   the line that tells EventSource when to connect again
    """

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
        tell: Callable[[Ending], None],
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
        self._tell = tell
        self._retry = retry
        self._write_bytes = write_bytes

    async def serve(self, scope: Scope, send: Send, asked_at: float) -> None:
        client = client_of(scope)
        with self._place:
            async with self._hub.topic(self._asked.name) as topic:
                life = SubscriptionLife(self._asked, topic, client, self._limits, self._write_bytes)
                with (
                    self._hub.topics.listening(topic, life.subscriber),
                    self._ledger.stream(self._route, since=asked_at) as record,
                ):
                    opening = self._retry + self._place_of(topic) + b"\n"
                    reply = Reply(send, client, record, opening=opening, error_event=ERROR)
                    await self._serve(life, client, record, reply)

    async def _serve(self, life: SubscriptionLife, client: Client, record: StreamRecord, reply: Reply) -> None:
        self._open_streams.add(life, resumable=True)
        outcome = "shutdown"  # not by `end`: the server takes the task down
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
        """The id that a new subscription begins after, so that even a client that has seen no event can resume."""
        return b"id: %d-%d\n" % topic.last if self._asked.wanted is None else b""


class SubscriptionLife:
    """What happens to one subscription between its request and its end."""

    __slots__ = (
        "_client", "_dropped", "_ending",  "_held", "_limits", "_patience", "_record", "_reply", "_rest",
        "_task", "_write_bytes", "error", "subscriber",
    )  # fmt: skip

    def __init__(self, asked: Subscription, topic: Topic, client: Client, limits: Limits, write_bytes: int) -> None:
        self.subscriber = Subscriber(topic, asked.policy, asked.capacity, self)
        if asked.wanted is not None:
            self.subscriber.resume(parse_id(asked.wanted), asked.wanted[:WANTED_CHARACTERS])
        self._client = client
        self._limits = limits
        self._write_bytes = write_bytes
        self._patience = Patience(limits, time.monotonic())
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._record: StreamRecord | None = None
        self._reply: Reply | None = None
        self._rest = b""  # of an event of which the client's connection has the beginning
        self._held = self._dropped = 0  # of the subscriber's, as far as the record knows
        self._ending: str | None = None
        self.error: ApiError | None = None

    # What the topic calls, by the subscriber

    def wake(self) -> None:
        self._flow()

    def too_slow(self) -> None:
        self.end("slow_client")

    def abandoned(self) -> None:
        self.end("upstream_error", HubUnavailableError("connect again, to go on where this ends"))

    # What the client's connection calls

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

    # What the sweep and the shutdown call

    def end(self, outcome: str, error: ApiError | None = None) -> None:
        """End the subscription now. Does nothing to one that has ended."""
        if self._ending is None and self._task is not None:
            self._ending, self.error = outcome, error
            if self._record is not None:
                self._record.ends(outcome)
            self._task.cancel()

    def look_after(self, now: float) -> None:
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

    # What the response calls

    async def live(self, record: StreamRecord, reply: Reply) -> str:
        """Send until the end, and take leave as the reason for it allows. The outcome."""
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
            await reply.part(self.error or ShuttingDownError(), at_boundary=not self._rest)
        return str(self._ending)

    def over(self) -> None:
        """Nothing is sent any more, and nothing is held."""
        self._task = self._reply = None
        self._rest = b""
        if self._record is not None:
            self._count(self._record)
            self._record.release(self._held)
            self._record = None
        self.subscriber.leaves()

    def _flow(self) -> None:
        """Give the client's connection what waits, as long as it has room."""
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
        """Tell the record what waits and what was dropped since."""
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
