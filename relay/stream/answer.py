"""A large answer that does not stream, passed on as it comes: it costs what a stream costs, however large it is.

The law of this file is that of a relayed stream (life.py): what the client's connection has no room for is not read from the
upstream's, and the sweep ends what waits for too long, by the same patience. The beginning of the answer has been read before
its response starts, so that an upstream which fails at once is still an error with a status. Whatever goes wrong afterwards
can only be told by breaking off: the connection is reset, and the client finds its answer shorter than its length, or without
its last chunk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from diagnostics import StreamLedger, StreamRecord

from ..client.client import Client, client_of
from ..client.outside import OutsideResponse
from ..client.reply import Scope, Send
from ..errors import ApiError, UpstreamError, UpstreamProtocolError, UpstreamTimeoutError, without_frames
from ..upstream.body import Body
from ..upstream.upstream import Answer
from .patience import Limits, Patience, Progress
from .sweep import OpenStreams

__all__ = ["LargeAnswer"]

# How long the server takes to notice that a connection was given up.
ABORTED_SECONDS: Final = 1.0


class LargeAnswer(OutsideResponse):
    """The response that is the answer: it closes what it was given.

    place       the answer's place among those that are let in
    limits      how long is waited for the upstream and for the client
    max_bytes   an answer that is larger is broken off
    ended       is told how it ended: the outcome, and the error if there was one
    """

    def __init__(
        self,
        answer: Answer,
        *,
        route: str,
        ledger: StreamLedger,
        open_streams: OpenStreams,
        place: AbstractContextManager[Any],
        limits: Limits,
        max_bytes: int,
        ended: Callable[[str, ApiError | None], None],
    ) -> None:
        super().__init__()
        self._answer: Answer | None = answer
        self._route = route
        self._ledger = ledger
        self._open_streams = open_streams
        self._place = place
        self._limits = limits
        self._max_bytes = max_bytes
        self._ended = ended

    async def serve(self, scope: Scope, send: Send, asked_at: float) -> None:
        answer, self._answer = self._answer, None
        assert answer is not None, "an answer is served once"
        assert answer.rest is not None, "an answer that is all there needs no life of its own"
        client = client_of(scope)
        with self._place, self._ledger.stream(self._route, since=asked_at) as record:
            life = AnswerLife(answer.rest, client, record, self._limits, self._max_bytes)
            self._open_streams.add(life)
            outcome, error = "upstream_error", None  # where not even the error has a name
            try:
                client.listen(life)
                passing = life.live(answer, send)
                del answer  # its beginning is on its way soon
                outcome, error = await passing
            except asyncio.CancelledError:
                outcome = "shutdown"  # not by `end`: the server takes the task down
                raise
            finally:
                client.listen(None)
                self._open_streams.discard(life)
                record.ends(outcome)
                life.over()
                self._ended(outcome, error)


class AnswerLife:
    """What happens to one large answer."""

    __slots__ = (
        "_client", "_complete", "_ending", "_error", "_limits", "_max_bytes", "_patience", "_reads", "_record", "_rest",
        "_task",
    )  # fmt: skip

    def __init__(self, rest: Body, client: Client, record: StreamRecord, limits: Limits, max_bytes: int) -> None:
        self._rest = rest
        self._client = client
        self._record = record
        self._limits = limits
        self._max_bytes = max_bytes
        self._patience = Patience(limits, time.monotonic())
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._reads = 0
        self._complete = False
        self._ending: str | None = None
        self._error: ApiError | None = None

    # Called by the client's connection (client.client.Listener)

    def paused(self) -> None:
        self._record.waits()

    def resumed(self) -> None:
        self._record.goes_on()

    def lost(self) -> None:
        if not self._complete:
            self._record.disconnected()
            self.end("client_disconnected")

    # Called by the sweep and at shutdown

    def end(self, outcome: str, error: ApiError | None = None) -> None:
        """End the answer now, wherever it waits. Does nothing to one that has ended."""
        if self._ending is None and self._task is not None and not self._complete:
            self._ending, self._error = outcome, error
            self._record.ends(outcome)
            self._close_upstream()
            self._task.cancel()

    def look_after(self, now: float) -> None:
        record = self._record
        if self._complete or self._ending is not None:
            return
        progress = Progress(record.bytes_in, self._reads, record.bytes_out, True, self._client.unsent())
        match self._patience.look(now, progress):
            case "total":
                self.end("timeout")
            case "write":
                self.end("slow_client")
            case "read":
                self.end("timeout", UpstreamTimeoutError("the upstream fell silent"))

    # Called by the response

    async def live(self, answer: Answer, send: Send) -> tuple[str, ApiError | None]:
        """Pass it on until its end; the outcome, and the error if there was one."""
        try:
            await self._pass_on(answer, send)
            return "completed", None
        except asyncio.CancelledError:
            if self._ending is None or self._task is None:
                raise
            self._task.uncancel()
        except UpstreamError as problem:
            self._error = without_frames(problem)
            self._ending = problem.outcome
            self._record.ends(problem.outcome)
        self._client.abort()  # nothing else tells the client that what it has is not all
        await self._client.gone(ABORTED_SECONDS)
        return str(self._ending), self._error

    def over(self) -> None:
        """Close what is open; nothing ends the answer any more."""
        self._task = None
        self._record.goes_on()
        self._close_upstream()

    async def _pass_on(self, answer: Answer, send: Send) -> None:
        self._rest.untimed()  # from here on the sweep looks after it
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        chunk = answer.content
        del answer
        left = self._max_bytes
        while chunk:
            left -= len(chunk)
            if left < 0:
                raise UpstreamProtocolError(
                    f"the upstream's answer is larger than {self._max_bytes} bytes (RELAY_MAX_RESPONSE_BYTES)"
                )
            self._reads += 1
            self._record.relayed(len(chunk), 0)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            del chunk  # the transport has it; here it would be held twice
            if self._client.full:
                await self._client.room()
            chunk = await self._rest.read()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self._complete = True

    def _close_upstream(self) -> None:
        self._rest.close()
        self._record.upstream_closed()
