"""A large answer that does not stream, relayed chunk by chunk: it is bounded in memory as a stream is, however large it is.

The law of this file is that of a relayed stream (life.py): while the client's connection is full, the upstream's is not read,
and the sweep ends an answer that waits for too long, by the same time-outs (patience.py). The beginning of the answer is read
before the response starts, so that an upstream that fails at once is still an error with a status. For a later failure the
connection is reset, since HTTP has no other way to show it: the client finds the answer shorter than its Content-Length, or
without its last chunk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

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


class LargeAnswer(OutsideResponse):
    """The response that relays an answer, and closes the upstream's body at the end.

    place       the answer's place at the gate (admission/gate.py), taken for as long as it is relayed
    limits      the time-outs for the upstream and for the client
    max_bytes   a larger answer is broken off
    ended       called at the end with the outcome, and with the error if there was one
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
            outcome, error = "upstream_error", None  # for an exception that is none of errors.py
            try:
                client.listen(life)
                passing = life.live(answer, send)
                del answer  # else its beginning would be held here until the end
                outcome, error = await passing
            except asyncio.CancelledError:
                outcome = "shutdown"  # the server cancelled the task, `end` did not
                raise
            finally:
                client.listen(None)
                self._open_streams.discard(life)
                record.ends(outcome)
                life.over()
                self._ended(outcome, error)


class AnswerLife:
    """One large answer while it is relayed: the Listener of its client, and one of the streams that the sweep visits."""

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
        """End the answer now, whatever its task waits for. Does nothing where it has ended."""
        if self._ending is None and self._task is not None and not self._complete:
            self._ending, self._error = outcome, error
            self._record.ends(outcome)
            self._close_upstream()
            self._task.cancel()

    def look_after(self, now: float) -> None:
        """The sweep's look: end the answer if it is past a time-out. `now` in monotonic seconds."""
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
        """Relay the answer to its end. Returns the outcome, and the error if there was one."""
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
        self._client.abort()  # only a reset shows the client that its answer is incomplete
        await self._client.gone()
        return str(self._ending), self._error

    def over(self) -> None:
        """Close the upstream's body; from here on `end` does nothing."""
        self._task = None
        self._record.goes_on()
        self._close_upstream()

    async def _pass_on(self, answer: Answer, send: Send) -> None:
        self._rest.untimed()  # from here on the sweep enforces the time-outs
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        chunk = answer.content
        del answer
        bytes_left = self._max_bytes
        while chunk:
            bytes_left -= len(chunk)
            if bytes_left < 0:
                raise UpstreamProtocolError(
                    f"the upstream's answer is larger than {self._max_bytes} bytes (RELAY_MAX_RESPONSE_BYTES)"
                )
            self._reads += 1
            self._record.relayed(len(chunk), 0)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            del chunk  # the transport holds it now; this reference would keep it until the next read
            if self._client.full:
                await self._client.room()
            chunk = await self._rest.read()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self._complete = True

    def _close_upstream(self) -> None:
        self._rest.close()
        self._record.upstream_closed()
