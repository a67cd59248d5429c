"""A relayed stream as the response that it is: everything it opens, it closes, on every way out, and its end has one name.

What happens in between is told in life.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from diagnostics import StreamLedger, StreamRecord

from .connection import client_of
from .ending import Ending
from .endpoints import Endpoint
from .errors import ApiError
from .facts import Facts
from .life import StreamLife
from .outside import OutsideResponse
from .patience import Limits
from .read_ahead import ReadAhead, Source
from .reply import Reply, Scope, Send
from .sweep import OpenStreams
from .upstreams import Upstreams

__all__ = ["Call", "Policy", "RelayedStream", "Span"]

# How long the server takes to notice that a connection was given up.
ABORTED_SECONDS: Final = 1.0


class Span(Protocol):
    """What a stream tells the trace about its call to the upstream (see telemetry/)."""

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits, or None where nothing is traced."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What the upstream is sent, so that its own spans belong to this trace."""

    def first_chunk(self) -> None: ...

    def event(self, name: str, **about: str | float) -> None:
        """Something happened to the stream: one of the events in telemetry/names.py. Never called for each chunk."""

    def swept(self, record: StreamRecord, since: float, now: float) -> bool:
        """The sweep has looked at the stream, as it did at `since`. False: tell the next time too, in any case."""

    def end(
        self,
        outcome: str,
        *,
        record: StreamRecord | None = None,
        facts: Facts | None = None,
        error: ApiError | None = None,
    ) -> None:
        """It is over. A stream has a record, and gets its line in the log."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the upstream: what the trace and the relay need of it, and its JSON as it came.

    model   as asked for; "" where the upstream has it stored
    """

    endpoint: Endpoint
    model: str
    streams: bool
    content: bytes


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for all streams of one relay.

    degraded_message   what a chat is answered when no upstream can be had; "": the error
    read_ahead         None: nothing is read that the client has no room for
    ended              is told how each stream ended, and its trace; None: nobody is
    """

    limits: Limits
    max_event_bytes: int
    degraded_message: str = ""
    read_ahead: Callable[[Source], ReadAhead] | None = None
    ended: Callable[[Ending, str | None], None] | None = None


class RelayedStream(OutsideResponse):
    """The response that is the stream. It closes what it opens and leaves nothing to a framework.

    place     the stream's place among those that are let in, taken for as long as it lives
    request_headers   for the trace
    opening   what the stream begins with, lines without the blank one after them
    early     whether a heartbeat may start the response
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        call: Call,
        *,
        route: str,
        policy: Policy,
        upstream: Upstreams,
        ledger: StreamLedger,
        open_streams: OpenStreams,
        place: AbstractContextManager[None],
        start_span: Callable[[Call, Mapping[str, str]], Span],
        request_headers: Mapping[str, str],
        opening: bytes = b"",
        early: bool = False,
    ) -> None:
        super().__init__()
        self._call: Call | None = call
        self._route = route
        self._policy = policy
        self._upstream = upstream
        self._ledger = ledger
        self._open_streams = open_streams
        self._place = place
        self._start_span, self._request_headers = start_span, request_headers
        self._opening, self._early = opening, early

    async def serve(self, scope: Scope, send: Send, asked_at: float) -> None:
        call, self._call = self._call, None
        assert call is not None, "a stream is served once"
        client = client_of(scope)
        with self._place, self._ledger.stream(self._route, since=asked_at) as record:
            span = self._start_span(call, self._request_headers)
            self._request_headers = {}  # with a key among them
            record.trace_id = span.trace_id
            reply = Reply(send, client, record, opening=self._opening, early=self._early)
            life = StreamLife(call, self._policy, record, span, reply)
            self._open_streams.add(life)
            outcome, error = "upstream_error", None  # where not even the error has a name
            try:
                client.listen(life)
                outcome, error = await life.live(call, self._upstream)
                if not reply.complete:
                    # The server would complain of a response that is not whole, had it not noticed that nobody wants it.
                    await client.gone(ABORTED_SECONDS)
            except asyncio.CancelledError:
                outcome = "shutdown"  # not by `end`: the server takes the task down
                raise
            finally:
                client.listen(None)
                self._open_streams.discard(life)
                record.ends(outcome)
                life.over()
                span.end(outcome, record=record, facts=life.facts, error=error)
                if self._policy.ended is not None:
                    ending = Ending.of(outcome, record=record, facts=life.facts, error=error)
                    self._policy.ended(ending, span.trace_id)
                await reply.close()
                await life.ended()
