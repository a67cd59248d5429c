"""The response to a client that comes back: the rest of its stream, from the log, and then event by event as the log grows.

The law of this file is that of a topic's subscription (hub/stream.py). An event is written to the client's connection in the
step in which it is appended to the log, as long as the connection has room; while it has none, events wait in the log. The
client gets every event after its own last one, once and in order, or an error: never a gap. A large event is written in pieces
of `write_bytes`.
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
from ..client.reply import Reply, Scope, Send
from ..errors import ApiError, ShuttingDownError, StreamExpiredError, TooLongError
from ..stream.ending import Ending
from ..stream.patience import Limits, Patience, Progress
from ..stream.sweep import OpenStreams
from .ids import Position
from .life import Productions
from .numbering import Numbering
from .reply import COMMENT, STREAM_HEADER
from .store import Followed, Store

__all__ = ["ResumedStream"]

# The longest wait for the server to notice that a connection was aborted.
ABORTED_SECONDS: Final = 1.0
# The share of what may be kept of a stream by which a client may be behind, before the upstream is paused for it.
BEHIND: Final = 0.5


class ResumedStream(OutsideResponse):
    """The response of a stream that goes on where its client left it.

    position      after which the client gets the stream
    caller        the name of the key that asks; "" where the relay has no keys
    event_source  the client said by Last-Event-ID where it is: the answer after the last event of a stream that is over is 204,
                  which makes an EventSource stop; else an empty stream
    place         the stream's place at the gate (admission/gate.py), taken for as long as it lasts
    tell          called with the facts of the response's end
    write_bytes   the most that one write gives to the connection
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        position: Position,
        caller: str,
        *,
        event_source: bool,
        route: str,
        store: Store,
        productions: Productions,
        ledger: StreamLedger,
        open_streams: OpenStreams,
        place: AbstractContextManager[None],
        limits: Limits,
        tell: Callable[[Ending], None],
        write_bytes: int,
    ) -> None:
        super().__init__()
        self._position = position
        self._caller = caller
        self._event_source = event_source
        self._route = route
        self._store = store
        self._productions = productions
        self._ledger = ledger
        self._open_streams = open_streams
        self._place = place
        self._limits = limits
        self._tell = tell
        self._write_bytes = write_bytes

    async def serve(self, scope: Scope, send: Send, asked_at: float) -> None:
        client = client_of(scope)
        after = self._position.number
        with self._place:
            async with self._store.follow(self._position, self._caller) as followed:
                log = followed.log
                if self._event_source and log.is_over and after == log.last:
                    await send({"type": "http.response.start", "status": 204, "headers": []})
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    return
                with self._ledger.stream(self._route, since=asked_at) as record:
                    reply = Reply(send, client, record)
                    reply.heartbeat = COMMENT
                    life = ResumedLife(
                        followed, after, client, self._limits, self._write_bytes, self._held_back, self._keeps_bytes
                    )
                    await self._serve(life, client, record, reply)

    async def _serve(self, life: ResumedLife, client: Client, record: StreamRecord, reply: Reply) -> None:
        # Of a stream that another process relays, the client can get the rest from any process: at shutdown it may go early.
        self._open_streams.add(life, resumable=not life.own)
        outcome = "shutdown"  # where the server cancels the task, and `end` was not called
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

    @property
    def _keeps_bytes(self) -> int:
        return self._store.logs.bounds.stream_bytes

    def _held_back(self, follower: object, lags: bool) -> None:
        life = self._productions.get(self._position.stream)
        if life is not None:
            life.hold_back(follower, lags)


class ResumedLife:
    """One such response between its request and its end: a Follower of the log, the Listener of its client, and swept.

    own      the stream is one that this process relays
    lagging  called with True where this client is far behind the log, with False where it is not any more
    """

    def __init__(
        self,
        followed: Followed,
        after: int,
        client: Client,
        limits: Limits,
        write_bytes: int,
        lagging: Callable[[object, bool], None],
        keeps_bytes: int,
    ) -> None:
        self.own = followed.own
        self.error: ApiError | None = None
        self._log = followed.log
        self._taken = followed.taken
        self._number = after  # of the last event that was given to the connection, whole or in part
        self._numbering = Numbering(followed.log.id)
        self._client = client
        self._limits = limits
        self._write_bytes = write_bytes
        self._lagging, self._lags = lagging, False
        self._most_behind = int(keeps_bytes * BEHIND)
        self._behind = 0  # bytes of the events that the client is behind, about
        self._patience = Patience(limits, time.monotonic())
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._record: StreamRecord | None = None
        self._reply: Reply | None = None
        self._rest = b""  # the rest of an event whose beginning was written
        self._held = 0  # its bytes, as the record has them
        self._ending: str | None = None

    # Called by the log (log.Follower)

    def offer(self, event: bytes, number: int) -> None:
        if self._reply is None or self._ending is not None:
            return  # the response has not begun, and will read the log; or it is over
        if number == self._number + 1 and self._has_room():
            self._write(event)
        else:
            self._is_behind(len(event))

    def ended(self) -> None:
        self._flow()

    def broken(self, error: ApiError) -> None:
        self.end("upstream_error", error)

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
        """End the response with this outcome now; `error` is sent to the client. Does nothing where it has ended."""
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

    async def live(self, record: StreamRecord, reply: Reply) -> str:
        """Serve until the log is over or `end` is called. Returns the outcome."""
        log = self._log
        log.followers[self] = None
        self._is_behind(log.bytes_after(self._number))
        try:
            await reply.start({STREAM_HEADER: log.id})
            self._record, self._reply = record, reply
            self._flow()
            await self._finished
        except asyncio.CancelledError:
            if self._ending is None:
                raise
            if self._task is not None:
                self._task.uncancel()
        if self._ending is None:
            await reply.finish()
            return "upstream_error" if log.failed else "completed"
        if self._ending == "slow_client" and self.error is None:
            reply.abort()
        elif self._ending == "shutdown" and not self.own:
            reply.abort()  # a lost connection is what makes a client come back, to another process
        elif self._ending != "client_disconnected":
            await reply.fail_or_abort(self.error or ShuttingDownError(), at_boundary=not self._rest)
        return self._ending

    def over(self) -> None:
        """Leave the log; from here on `end` does nothing."""
        self._task = self._reply = None
        self._rest = b""
        self._log.followers.pop(self, None)
        self._behind = 0
        self._tell_lag()
        if self._record is not None:
            self._record.release(self._held)
            self._record = None

    def _flow(self) -> None:
        """Write what the client is behind to its connection, as long as that has room."""
        if self._reply is None or self._ending is not None:
            return  # the response has not begun, or is over
        log = self._log
        while not self._client.full and self._ending is None:
            if self._rest:
                self._write_piece()
            elif log.place(self._number) == "dropped":
                self.end("slow_client", StreamExpiredError())
                return
            else:
                events = log.read(self._number, self._write_bytes) if self._number < log.last else []
                if not events:
                    break
                for event in events:
                    if not self._has_room():
                        break
                    self._write(event)
        if self._number >= log.last and not self._rest:
            self._behind = 0
            if log.is_over and not self._finished.done():
                self._finished.set_result(None)
        self._tell_lag()

    def _has_room(self) -> bool:
        """Whether a whole event may be written now."""
        return not self._client.full and not self._rest

    def _write(self, event: bytes) -> None:
        """Write the event after `_number`, or the beginning of a large one."""
        assert self._record is not None
        self._number += 1
        frame = self._numbering.frame(event, self._number)
        self._record.received(len(frame), 1)
        self._behind = max(self._behind - len(event), 0)
        self._rest = frame
        self._write_piece()
        self._taken(self._number)

    def _write_piece(self) -> None:
        record, reply, size = self._record, self._reply, self._write_bytes
        assert record is not None
        assert reply is not None
        piece, self._rest = self._rest[:size], self._rest[size:]
        reply.write(piece)
        record.sent(len(piece), 0 if self._rest else 1)
        held = len(self._rest)
        if held != self._held:
            record.hold(held - self._held)
            self._held = held

    def _is_behind(self, nbytes: int) -> None:
        self._behind += nbytes
        self._tell_lag()

    def _tell_lag(self) -> None:
        """Tell the stream that this client is far behind, or is not any more: below half of what is far."""
        lags = self._behind > (self._most_behind // 2 if self._lags else self._most_behind)
        if lags != self._lags:
            self._lags = lags
            self._lagging(self, lags)
