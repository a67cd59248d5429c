"""One stream that has no upstream of its own: what is written comes from this process, from a topic or from a kept stream.

The law of this file is that of a relayed stream (life.py). An event is written to the client's connection in the step in which
it comes, as long as the connection has room. The request's own task sleeps until the source, the client, the sweep or the
shutdown ends the stream, which has exactly one outcome. A large event is written in pieces of `write_bytes`, so that the
transport holds no more than the stream's budget allows.
"""

from __future__ import annotations

import abc
import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from diagnostics import StreamRecord

from ..client.client import Client
from ..client.reply import Reply
from ..errors import ApiError, ShuttingDownError, TooLongError
from .ending import Ending
from .patience import Limits, Patience, Progress
from .sweep import OpenStreams

__all__ = ["OutgoingLife"]


class OutgoingLife(abc.ABC):
    """One such stream between its request and its end: the Listener of its client, and visited by the sweep.

    error   what the stream ended with, None where there was none
    """

    __slots__ = (
        "_client", "_ending", "_finished", "_held", "_limits", "_patience", "_record", "_reply", "_rest", "_task",
        "_write_bytes", "error",
    )  # fmt: skip

    # Whether a client may get the rest of the stream from another process: it is let go early at shutdown.
    resumable = True
    # Whether the shutdown resets the connection instead of sending an error.
    reset_at_shutdown = False

    def __init__(self, client: Client, limits: Limits, write_bytes: int) -> None:
        self._client = client
        self._limits = limits
        self._write_bytes = write_bytes
        self._patience = Patience(limits, time.monotonic())
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._finished: asyncio.Future[str] = asyncio.get_running_loop().create_future()  # done with the outcome
        self._record: StreamRecord | None = None
        self._reply: Reply | None = None
        self._rest = b""  # the rest of an event whose beginning was written
        self._held = 0  # bytes that wait here, as the record has them
        self._ending: str | None = None
        self.error: ApiError | None = None

    @abc.abstractmethod
    def _flow(self) -> None:
        """Write what waits to the client's connection, as long as it has room; nothing before `serve` and after the end."""

    @abc.abstractmethod
    def _leave(self) -> None:
        """Leave the source: the stream has ended, and nothing more is written."""

    # Called by the client's connection (client.client.Listener)

    def paused(self) -> None:
        if self._record is not None:
            self._record.waits()

    def resumed(self) -> None:
        if self._record is not None:
            self._record.goes_on()
        self._flow()

    def lost(self) -> None:
        if self._ending is None and not (self._reply is not None and self._reply.complete):
            if self._record is not None:
                self._record.disconnected()
            self.end("client_disconnected")

    # Called by the sweep and at shutdown

    def end(self, outcome: str, error: ApiError | None = None) -> None:
        """End the stream with this outcome now; `error` is sent to the client. Does nothing where it has ended."""
        if self._ending is None and self._task is not None and not self._finished.done():
            self._ending, self.error = outcome, error
            if self._record is not None:
                self._record.ends(outcome)
            self._task.cancel()

    def look_after(self, now: float) -> None:
        """The sweep's look: enforce the time-outs, send a heartbeat if one is due. `now` in monotonic seconds."""
        record, reply = self._record, self._reply
        if record is None or reply is None or self._ending is not None or reply.complete:
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

    async def serve(
        self,
        record: StreamRecord,
        reply: Reply,
        headers: Mapping[str, str],
        open_streams: OpenStreams,
        tell: Callable[[Ending], None],
    ) -> None:
        """Serve the whole stream, and close all that it opened. `tell` is called with the facts of its end."""
        client = self._client
        open_streams.add(self, resumable=self.resumable)
        outcome = "shutdown"  # where the server cancels the task, and `end` was not called
        try:
            client.listen(self)
            outcome = await self._live(record, reply, headers)
            if not reply.complete:
                # The server logs an error for an incomplete response, unless it has noticed that the client is gone.
                await client.gone()
        finally:
            client.listen(None)
            open_streams.discard(self)
            record.ends(outcome)
            self._over(record)
            tell(Ending.of(outcome, record=record, error=self.error))
            await reply.close()

    async def _live(self, record: StreamRecord, reply: Reply, headers: Mapping[str, str]) -> str:
        """Serve until the source or `end` ends it, then send the error or abort the connection. Returns the outcome."""
        try:
            await reply.start(headers)
            self._record, self._reply = record, reply
            self._flow()
            outcome = await self._finished
            await reply.finish()
            return outcome
        except asyncio.CancelledError:
            if self._ending is None:
                raise
            if self._task is not None:
                self._task.uncancel()
        outcome = str(self._ending)
        if (outcome == "slow_client" and self.error is None) or (outcome == "shutdown" and self.reset_at_shutdown):
            reply.abort()
        elif outcome != "client_disconnected":
            await reply.fail_or_abort(self.error or ShuttingDownError(), at_boundary=not self._rest)
        return outcome

    def _over(self, record: StreamRecord) -> None:
        """Drop what waits; from here on `end` does nothing."""
        self._task = self._reply = None
        self._rest = b""
        self._leave()
        record.release(self._held)
        self._record = None

    def _hold(self, nbytes: int) -> None:
        """Report the bytes that wait to the record."""
        if nbytes != self._held and self._record is not None:
            self._record.hold(nbytes - self._held)
            self._held = nbytes
