"""The response of a stream that can be resumed: as that of any relayed stream (stream/response.py), with its log."""

from __future__ import annotations

from typing import Any

from diagnostics import StreamRecord

from ..client.client import Client
from ..client.reply import Reply, Send
from ..stream.call import Call, Span
from ..stream.response import RelayedStream
from .life import Productions, ResumableLife
from .reply import RecordedReply
from .store import Store

__all__ = ["ResumableStream"]


class ResumableStream(RelayedStream):
    """The response that relays a stream and keeps it.

    caller          the name of the key that asked; "" where the relay has no keys
    productions     the streams that this process relays now
    grace_seconds   how long the upstream goes on without a client
    retry           the SSE `retry` line, after which EventSource reconnects, or b""; None for clients that are no EventSource
    """

    def __init__(
        self,
        call: Call,
        *,
        caller: str,
        store: Store,
        productions: Productions,
        grace_seconds: float,
        retry: bytes | None = None,
        **options: Any,
    ) -> None:
        super().__init__(call, **options)
        self._caller = caller
        self._store = store
        self._productions = productions
        self._grace_seconds = grace_seconds
        self._retry = retry

    def _begin(
        self, call: Call, send: Send, client: Client, record: StreamRecord, span: Span
    ) -> tuple[RecordedReply, ResumableLife]:
        log = self._store.logs.begin(self._caller)
        # An id before the first event, so that an EventSource that has seen none comes back to this stream as well. A block of
        # its own, which is for EventSource alone: see numbering.py.
        opening = b"%bid: %b:0\n\n" % (self._retry, log.id.encode()) if self._retry is not None else b""
        reply = RecordedReply(send, client, record, store=self._store, log=log, opening=opening, early=self._early)
        life = ResumableLife(call, self._options, record, span, reply, self._store, self._grace_seconds)
        self._productions[log.id] = life
        return reply, life

    def _over(self, reply: Reply) -> None:
        assert isinstance(reply, RecordedReply)
        del self._productions[reply.log.id]
