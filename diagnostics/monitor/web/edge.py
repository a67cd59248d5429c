"""Limits on the monitor's connections, in memory and time, that hold before a token is checked.

The law of this file: a request can be authenticated only once it is complete. So every connection has limits: on its head's
bytes, on the seconds for head and body, on the seconds in which the client takes no byte of an answer; and their number has
one. A connection over a limit is closed and counted.

uvicorn's h11 protocol is extended, which is always installed: h11 bounds a head by itself, httptools does not. uvicorn takes
the class of its HTTP protocol as a setting, so this needs no patch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Container, Hashable, Iterator
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..failures import Failures

__all__ = ["MAX_CONNECTIONS", "MAX_HEAD_BYTES", "Edge", "EdgeServer"]

log = logging.getLogger("diagnostics.monitor")

# As nginx's four buffers of 8 KiB, and twice Node.js's limit: browsers send the cookies of all ports of `localhost`.
MAX_HEAD_BYTES: Final = 32 * 1024
# A few dozen pages (routes/page.py), scrapers, and people. Each may buffer its head, 64 KiB of body and one further read of
# its socket (256 KiB): 40 MiB at most.
MAX_CONNECTIONS: Final = 128
# A head or a body is a few packets, sent at once.
HEAD_SECONDS: Final = 10.0
BODY_SECONDS: Final = 10.0
# A client that takes no byte of an answer for this long is gone, or hostile.
STUCK_SECONDS: Final = 30.0
KEEP_ALIVE_SECONDS: Final = 5
# At the monitor's end, for answers that are under way.
_GRACE_SECONDS: Final = 5
_TELL_SECONDS: Final = 60.0
_TICKS: Final = 10  # of uvicorn's 0.1 s

_CLOSING: Final = b"HTTP/1.1 %d \r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
_WAITS: Final = {h11.IDLE: ("head", HEAD_SECONDS), h11.SEND_BODY: ("body", BODY_SECONDS)}


class Connection(H11Protocol):
    """One client's connection; `edge` is set by `Edge.protocol`."""

    edge: Edge

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._phase: tuple[object, object] | None = None
        self._since = 0.0
        self._unsent = 0
        self._stuck_since = 0.0
        self._resumed = False  # since the last `look`: the client has taken bytes

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._new_phase(self.edge.clock())
        if not self.edge.opened(self):
            self._answer(503, b"too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        self.edge.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)

    def resume_writing(self) -> None:
        self._resumed = True
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self.edge.counted("malformed")
        self._answer(400, msg.encode())

    @property
    def is_waited_for(self) -> bool:
        """Whether its present or next request is not complete."""
        return self.conn.their_state in _WAITS

    def look(self, now: float) -> None:
        """Close the connection if it is past a time limit. `now`: monotonic seconds; to be called about every second."""
        if self._phase != (self.cycle, self.conn.their_state):
            self._new_phase(now)
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent or not unsent or self._resumed:
            self._unsent, self._stuck_since, self._resumed = unsent, now, False
        elif now - self._stuck_since > STUCK_SECONDS:
            self._give_up("answer_not_taken")
            return
        if not self.transport.is_closing():
            what, seconds = _WAITS.get(self.conn.their_state, ("", float("inf")))
            if now - self._since > seconds:
                self._give_up(f"{what}_timeout")

    def _new_phase(self, now: float) -> None:
        self._phase, self._since = (self.cycle, self.conn.their_state), now

    def _give_up(self, why: str) -> None:
        self.edge.counted(why)
        in_the_middle = self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]
        if in_the_middle and why != "answer_not_taken":
            self._answer(408, b"the request did not come whole in time")
        else:
            self.transport.abort()

    def _answer(self, status: int, words: bytes) -> None:
        """Send an error response, where no response has begun, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = words + b"\n"
            self.transport.write(_CLOSING % (status, len(body)) + body)
            self.transport.close()
        else:
            self.transport.abort()


class Edge:
    """All connections of one monitor, oldest first.

    guessing   the peers, (address, port), that have sent a wrong token and wait for the answer
    clock      monotonic seconds
    """

    def __init__(self, guessing: Container[Hashable] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._guessing = guessing
        self._open: dict[Connection, None] = {}
        self._closed_for: Counter[str] = Counter()  # reason -> count since the last log line
        self._tell_at = 0.0
        self._failures = Failures("a look at a connection of the monitor")

    def __len__(self) -> int:
        return len(self._open)

    def protocol(self) -> type[Connection]:
        return type("BoundedConnection", (Connection,), {"edge": self})

    def opened(self, connection: Connection) -> bool:
        """Whether the new connection may stay. At the limit the oldest one with an incomplete or guessing request is closed."""
        if len(self._open) >= MAX_CONNECTIONS:
            idle = next((each for each in self._open if each.is_waited_for or each.client in self._guessing), None)
            self.counted("too_many_connections")
            if idle is None:
                return False
            self.closed(idle)
            idle.transport.abort()
        self._open[connection] = None
        return True

    def closed(self, connection: Connection) -> None:
        self._open.pop(connection, None)

    def counted(self, why: str) -> None:
        """Count a connection that was closed over a limit; the counts are logged once a minute."""
        self._closed_for[why] += 1

    def look(self) -> None:
        now = self.clock()
        for connection in list(self._open):
            try:
                connection.look(now)
            except Exception as error:  # noqa: BLE001  # one connection's failure must not end the server's loop
                self._failures.failed(error)
        if self._closed_for and now >= self._tell_at:
            faults = ", ".join(f"{count} {why}" for why, count in sorted(self._closed_for.items()))
            log.warning("the monitor has closed connections: %s", faults)
            self._closed_for.clear()
            self._tell_at = now + _TELL_SECONDS


class EdgeServer(uvicorn.Server):
    """uvicorn with these limits, and without its signal handlers: the command that runs the monitor has its own."""

    def __init__(self, app: Any, guessing: Container[Hashable] = ()) -> None:
        self.edge = Edge(guessing)
        self._leaving = asyncio.Event()
        super().__init__(
            uvicorn.Config(
                app,
                http=self.edge.protocol(),
                ws="none",
                lifespan="off",
                log_level="error",  # no warning for each malformed request: a client could fill the log
                access_log=False,
                server_header=False,
                # Any local program could forge the peer's address, which the audit log records.
                proxy_headers=False,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )

    async def main_loop(self) -> None:
        """uvicorn's looks ten times a second whether it shall end. A monitor that nobody asks for would do little else."""
        second = 0
        while not await self.on_tick(second * _TICKS):
            second = (second + 1) % 86_400
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._leaving.wait()

    def leave(self) -> None:
        """End now: no request is taken any more, and those that are under way have `_GRACE_SECONDS`."""
        self.should_exit = True
        self._leaving.set()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            self.edge.look()
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
