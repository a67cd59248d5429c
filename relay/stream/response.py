"""The response of a relayed stream. It opens the stream's ledger record, span and place at the gate, closes all of them
however the stream ends, and records exactly one outcome.

The stream itself, between its beginning and its end, is in life.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from diagnostics import StreamLedger, StreamRecord

from ..client.client import Client, client_of
from ..client.outside import OutsideResponse
from ..client.reply import Reply, Scope, Send
from ..upstream.upstreams import Upstreams
from .call import Call, Span, StreamOptions
from .ending import Ending
from .life import StreamLife
from .sweep import OpenStreams

__all__ = ["RelayedStream"]


class RelayedStream(OutsideResponse):
    """The response that relays a stream.

    place             the stream's place at the gate (admission/gate.py), taken for as long as the stream lasts
    request_headers   of the client's request, for the trace context in them
    early             whether a heartbeat may start the response before the upstream's first bytes
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        call: Call,
        *,
        route: str,
        options: StreamOptions,
        upstream: Upstreams,
        ledger: StreamLedger,
        open_streams: OpenStreams,
        place: AbstractContextManager[None],
        start_span: Callable[[Call, Mapping[str, str]], Span],
        request_headers: Mapping[str, str],
        early: bool = False,
    ) -> None:
        super().__init__()
        self._call: Call | None = call
        self._route = route
        self._options = options
        self._upstream = upstream
        self._ledger = ledger
        self._open_streams = open_streams
        self._place = place
        self._start_span, self._request_headers = start_span, request_headers
        self._early = early

    async def serve(self, scope: Scope, send: Send, asked_at: float) -> None:
        call, self._call = self._call, None
        assert call is not None, "a stream is served once"
        client = client_of(scope)
        with self._place, self._ledger.stream(self._route, since=asked_at) as record:
            span = self._start_span(call, self._request_headers)
            self._request_headers = {}  # there is a key among them
            record.trace_id = span.trace_id
            reply, life = self._begin(call, send, client, record, span)
            self._open_streams.add(life)
            outcome, error = "upstream_error", None  # for an exception that is none of errors.py
            try:
                client.listen(life)
                outcome, error = await life.live(call, self._upstream)
                if not reply.complete:
                    # The server logs an error for an incomplete response, unless it has noticed that the client is gone.
                    await client.gone()
            except asyncio.CancelledError:
                outcome = "shutdown"  # the server cancelled the task, `end` did not
                raise
            finally:
                client.listen(None)
                self._open_streams.discard(life)
                record.ends(outcome)
                life.over()
                self._over(reply)
                ending = Ending.of(outcome, record=record, facts=life.facts, error=error)
                span.end(ending, life.facts)
                if self._options.ended is not None:
                    self._options.ended(ending, span)
                await reply.close()
                await life.ended()

    def _begin(
        self, call: Call, send: Send, client: Client, record: StreamRecord, span: Span
    ) -> tuple[Reply, StreamLife]:
        """Make the stream and the reply that it is written to."""
        reply = Reply(send, client, record, early=self._early)
        return reply, StreamLife(call, self._options, record, span, reply)

    def _over(self, reply: Reply) -> None:
        """The stream has ended, and everything that it opened is closed."""
