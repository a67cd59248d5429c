"""A relayed stream that goes on without its client, for a while, so that the client can come back for the rest.

The law of this file. While its first client is there, a stream is as any other (stream/life.py): the client's connection is
written to in the step in which bytes come, and pauses the upstream while it is full. When that client is lost, or takes nothing
for too long, the upstream goes on: for the grace time, and for as long as clients follow the log. A follower that is far behind
pauses the upstream too, so that the log does not drop what the follower needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from diagnostics import StreamRecord

from ..protocol.endpoints import RESPONSES, Endpoint
from ..stream.call import Call, Span, StreamOptions
from ..stream.life import StreamLife
from ..stream.patience import Verdict
from ..stream.pump import Pump
from .ids import WITHOUT_NUMBERS, difference
from .log import StreamLog
from .reply import RecordedReply
from .store import Store

__all__ = ["Productions", "ResumableLife"]


class RecordingPump(Pump):
    """A pump whose chunks are numbered and kept on their way; `named` is called once, with its response's id."""

    def __init__(
        self,
        endpoint: Endpoint,
        max_event_bytes: int,
        record: StreamRecord,
        reply: RecordedReply,
        named: Callable[[str], None] | None,
    ) -> None:
        super().__init__(endpoint, max_event_bytes, record, reply.write)
        self._pass_on = reply.pass_on
        self._named = named

    def hand_on(self, chunk: bytes, events: int) -> None:
        record, sent = self._record, self._pass_on(chunk)
        record.received(len(chunk), events)
        if sent:
            record.sent(sent, events)
        self.facts.feed(chunk)
        if self._named is not None and self.facts.response_id is not None:
            self._named(self.facts.response_id)
            self._named = None


class ResumableLife(StreamLife):
    """One stream between its request and its end. `grace_seconds`: how long it goes on while nobody follows it."""

    __slots__ = ("_full", "_grace_seconds", "_laggards", "_left_at", "_recorded", "_store")

    def __init__(
        self,
        call: Call,
        options: StreamOptions,
        record: StreamRecord,
        span: Span,
        reply: RecordedReply,
        store: Store,
        grace_seconds: float,
    ) -> None:
        self._recorded = reply
        self._store = store
        self._grace_seconds = grace_seconds
        self._left_at: float | None = None
        self._full = False  # the first client's connection is
        self._laggards: set[object] = set()  # the followers that are far behind
        super().__init__(call, options, record, span, reply)

    def _make_pump(self, call: Call, options: StreamOptions, record: StreamRecord) -> Pump:
        named = partial(_name, self._store, self._recorded.log) if call.endpoint is RESPONSES else None
        return RecordingPump(call.endpoint, options.max_event_bytes, record, self._recorded, named)

    # Called by the client's connection

    def paused(self) -> None:
        self._full = True
        super().paused()

    def resumed(self) -> None:
        self._full = False
        self._record.goes_on()
        self._go_on()

    def lost(self) -> None:
        if self._reply.complete or self._ending is not None or self._left_at is not None:
            return
        if not self._reply.started:
            super().lost()  # nobody knows the stream's id: nobody can come back for it
            return
        self._left_at = time.monotonic()
        self._recorded.detach()
        self.resumed()

    # Called by those that follow the log (resumed.py)

    def hold_back(self, follower: object, lags: bool) -> None:
        """`lags`: this follower is far behind; False: it is not any more."""
        if lags:
            self._laggards.add(follower)
            self._calm = False
            if self._source is not None:
                self._source.pause()
        else:
            self._laggards.discard(follower)
        self._recorded.let_lag(bool(self._laggards))
        self._go_on()

    def _go_on(self) -> None:
        if self._source is not None and not self._full and not self._recorded.lags:
            self._source.resume()

    # Called by the sweep

    def look_after(self, now: float) -> None:
        super().look_after(now)
        if self._left_at is None or self._ending is not None or self._reply.complete:
            return
        if now - max(self._left_at, self._store.wanted_at(self._recorded.log)) >= self._grace_seconds:
            self._record.disconnected()
            self.end("client_disconnected")

    def _act(self, verdict: Verdict) -> None:
        if verdict != "write":
            super()._act(verdict)
        elif not self._recorded.lags:  # else it is a follower that takes nothing, and has a time-out of its own
            self._reply.abort()
            self.lost()


def _name(store: Store, log: StreamLog, response_id: str) -> None:
    last = log.read(log.last - 1, 0) if log else []
    store.name(log, response_id, difference(last[0], log.last) if last else WITHOUT_NUMBERS)


# The streams that this process relays now, by id.
Productions = dict[str, ResumableLife]
