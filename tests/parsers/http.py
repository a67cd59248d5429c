"""The relay's HTTP client against h11: where both understand an answer, they understand the same.

Where one of them refuses what the other takes, that is a choice; where they read different bodies out of the same bytes, one of
two callers is answered with the other's words.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
from dataclasses import dataclass

import h11

from relay.errors import UpstreamError
from relay.upstream.wire.answer import MAX_HEAD_BYTES
from relay.upstream.wire.connection import UpstreamConnection

__all__ = ["Read", "check", "ours", "theirs"]

RECV_BYTES = 8 * 1024


@dataclass(frozen=True)
class Read:
    """An answer as it was understood."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class _NoTransport(asyncio.Transport):
    """Takes what is written, and is closed when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    close = abort

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def ours(data: bytes, size: int) -> Read | None:
    """As the relay reads it, in pieces of `size`; None where it refuses."""
    return loop().run_until_complete(_ours(data, size))


@functools.cache
def loop() -> asyncio.AbstractEventLoop:
    """One for all inputs: to make one takes longer than to read an answer."""
    made = asyncio.new_event_loop()
    atexit.register(made.close)
    return made


async def _ours(data: bytes, size: int) -> Read | None:
    connection = UpstreamConnection(RECV_BYTES, RECV_BYTES, 1 << 30)
    transport = _NoTransport()
    connection.connection_made(transport)
    asking = asyncio.ensure_future(connection.request(b"GET / HTTP/1.1\r\n\r\n", b""))
    await asyncio.sleep(0)
    for start in range(0, len(data), size):
        if transport.closed:
            break
        piece = data[start : start + size]
        connection.get_buffer(-1)[: len(piece)] = piece
        connection.buffer_updated(len(piece))
    connection.connection_lost(None)
    try:
        head = await asking
        body = b""
        while chunk := await connection.read():
            body += chunk
    except UpstreamError:
        return None
    return Read(head.status, [(name.lower(), value) for name, value in head.headers], body)


def theirs(data: bytes) -> Read | None:
    """As h11 reads it; None where it refuses."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    found: h11.Response | None = None
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                found = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and found is not None:
                return Read(found.status_code, list(found.headers), body)
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None


def check(data: bytes) -> bool:
    """The first byte says how the rest is cut. Whether both understood it."""
    size, answer = (data[0] % 16 + 1, data[1:]) if data else (1, b"")
    whole, cut = ours(answer, RECV_BYTES), ours(answer, size)
    assert whole == cut, (whole, cut)
    reference = theirs(answer)
    if whole is None or reference is None:
        return False
    assert (whole.status, whole.body) == (reference.status, reference.body), (whole, reference)
    assert [name for name, _ in whole.headers] == [name for name, _ in reference.headers], (whole, reference)
    return True
