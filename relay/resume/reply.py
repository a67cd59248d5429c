"""The response of a stream that can be resumed: what is sent to the client is numbered and kept.

The law of this file: everything that belongs to the stream goes through `pass_on`, which numbers it, keeps it and writes it to
the client, in one step; an error that ends the stream is its last event. Heartbeats are no part of the stream. When the client
has left (`detach`), the stream goes on without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from diagnostics import StreamRecord

from ..client.client import Client
from ..client.reply import Headers, Message, Reply, Send
from ..errors import ApiError, StreamAbandonedError
from ..protocol.sse import encode
from .log import StreamLog
from .numbering import Numbering
from .store import Store

__all__ = ["COMMENT", "STREAM_HEADER", "RecordedReply"]

# The response's header with the id of its stream.
STREAM_HEADER = "x-relay-stream"
# A heartbeat without the blank line, which some decoders take for an event once they have seen an id (numbering.py).
COMMENT = b": hb\n"


class RecordedReply(Reply):
    """A Reply that keeps its stream in `log`.

    log          the stream's log
    attached     whether the client is there
    lags         whether the upstream is paused for a client that follows the log (`let_lag`)
    """

    heartbeat = COMMENT

    def __init__(
        self,
        send: Send,
        client: Client,
        record: StreamRecord,
        *,
        store: Store,
        log: StreamLog,
        opening: bytes = b"",
        early: bool = False,
    ) -> None:
        super().__init__(send, client, record, opening=opening, early=early)
        self.log = log
        self.attached = True
        self.lags = False
        self._store = store
        self._keep = store.logs.append
        self._numbering = Numbering(log.id)
        self._held = 0  # of an unfinished event, as the logs count it
        self._failed = False
        self._to_client = self.write
        self._caught_up: asyncio.Future[None] | None = None

    def pass_on(self, chunk: bytes) -> int:
        """Number a chunk of the upstream's, keep it, and write it to the client. Returns the bytes that were written."""
        numbered, events = self._numbering.feed(chunk)
        sent = 0
        if self.attached and numbered:
            self._to_client(numbered)
            sent = len(numbered)
        if events:
            self._keep(self.log, events)
        if self._numbering.held != self._held:
            self._charge()
        return sent

    def detach(self) -> None:
        """The client has left."""
        self.attached = False
        self._send = _nowhere

    def let_lag(self, lags: bool) -> None:
        """`lags`: the stream is to wait for a client that follows the log."""
        self.lags = lags
        if not lags and self._caught_up is not None:
            self._caught_up.set_result(None)
            self._caught_up = None

    def unsent(self) -> int | None:
        if self.lags:
            return self.log.held
        return super().unsent() if self.attached else None

    async def room(self) -> None:
        if self.attached:
            await super().room()
        if self.lags:
            self._caught_up = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._caught_up)

    async def finish(self, body: bytes = b"") -> None:
        if body:
            self._record.sent(self.pass_on(body), body.count(b"\n\n") if self.attached else 0)
        self._over()
        await self._end(b"")

    async def fail(self, error: ApiError, *, at_boundary: bool) -> None:
        self._failed = True
        await super().fail(error, at_boundary=at_boundary)

    def beat(self) -> int:
        return super().beat() if self.attached else 0

    async def close(self) -> None:
        if not self.started and self._starting is None:
            self._store.logs.discard(self.log)
        elif not self.log.is_over:
            self._failed = True
            self.pass_on(b"\n\n" + encode(StreamAbandonedError().body()))
            self._over()
        self._charge_nothing()
        await super().close()

    def _charge(self) -> None:
        held = self._numbering.held
        self._store.logs.charge(held - self._held)
        self._held = held

    def _over(self) -> None:
        self._charge_nothing()
        self._store.end(self.log, failed=self._failed)

    def _charge_nothing(self) -> None:
        self._store.logs.charge(-self._held)
        self._held = 0

    async def _start(self, status: int, headers: Headers, more: Mapping[str, str]) -> None:
        if status == 200:
            more = {**more, STREAM_HEADER: self.log.id}
        await super()._start(status, headers, more)


async def _nowhere(message: Message) -> None:
    """A `send` to a client that has left."""
