"""The response to a client that comes back: the rest of its stream, from the log, and then event by event as the log grows.

The law of this file is that of all streams without an upstream (stream/outgoing.py). An event is written to the client's
connection in the step in which it is appended to the log; while the connection has no room, events wait in the log. The client
gets every event after its own last one, once and in order, or an error: never a gap.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from diagnostics import StreamLedger

from ..client.client import Client, client_of
from ..client.outside import OutsideResponse
from ..client.reply import Reply, Scope, Send
from ..errors import ApiError, StreamExpiredError
from ..stream.ending import Ending
from ..stream.outgoing import OutgoingLife
from ..stream.patience import Limits
from ..stream.sweep import OpenStreams
from .ids import Position
from .life import Productions
from .numbering import Numbering
from .reply import COMMENT, STREAM_HEADER
from .store import Followed, Store

__all__ = ["ResumedStream"]

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
                    await life.serve(record, reply, {STREAM_HEADER: log.id}, self._open_streams, self._tell)

    @property
    def _keeps_bytes(self) -> int:
        return self._store.logs.bounds.stream_bytes

    def _held_back(self, follower: object, lags: bool) -> None:
        life = self._productions.get(self._position.stream)
        if life is not None:
            life.hold_back(follower, lags)


class ResumedLife(OutgoingLife):
    """One such response between its request and its end, which is a Follower of the log.

    lagging  called with True where this client is far behind the log, with False where it is not any more
    """

    __slots__ = (
        "_behind", "_lagging", "_lags", "_log", "_most_behind", "_number", "_numbering", "_own", "_taken",
    )  # fmt: skip

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
        super().__init__(client, limits, write_bytes)
        self._own = followed.own  # the stream is one that this process relays
        self._log = followed.log
        self._taken = followed.taken
        self._number = after  # of the last event that was given to the connection, whole or in part
        self._numbering = Numbering(followed.log.id)
        self._lagging, self._lags = lagging, False
        self._most_behind = int(keeps_bytes * BEHIND)
        self._behind = 0  # bytes of the events that the client is behind, about
        self._log.followers[self] = None
        self._is_behind(self._log.bytes_after(after))

    @property
    def resumable(self) -> bool:  # type: ignore[override]  # a constant of other streams
        return not self._own

    @property
    def reset_at_shutdown(self) -> bool:  # type: ignore[override]  # a constant of other streams
        """A lost connection is what makes a client come back, to another process."""
        return not self._own

    # Called by the log (log.Follower)

    def offer(self, event: bytes, number: int) -> None:
        if self._reply is None or self._ending is not None:
            return  # the response has not begun, and will read the log; or it is over
        if number <= self._number:
            return  # it was written behind the rest of a large one
        if number == self._number + 1 and self._has_room():
            self._write(event)
            if self._rest:
                self._flow()  # a connection that has room for the rest calls nobody for it
        else:
            self._is_behind(len(event))

    def ended(self) -> None:
        self._flow()

    def broken(self, error: ApiError) -> None:
        self.end("upstream_error", error)

    # Of OutgoingLife

    def _leave(self) -> None:
        self._log.followers.pop(self, None)
        self._behind = 0
        self._tell_lag()

    def _flow(self) -> None:
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
                self._finished.set_result("upstream_error" if log.failed else "completed")
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
        self._hold(len(self._rest))

    def _is_behind(self, nbytes: int) -> None:
        self._behind += nbytes
        self._tell_lag()

    def _tell_lag(self) -> None:
        """Tell the stream that this client is far behind, or is not any more: below half of what is far."""
        lags = self._behind > (self._most_behind // 2 if self._lags else self._most_behind)
        if lags != self._lags:
            self._lags = lags
            self._lagging(self, lags)
