"""A client behind an ASGI server that is not the relay's own: everything goes through ASGI's `send` and `receive`.

The law of this file: the stream is the same, byte for byte, and as bounded in this process, but costs more. A stream writes
without waiting, and ASGI's `send` must be awaited. So the chunks wait here, at most `high_water_bytes` and one chunk, while a
task of the client's own sends them; the stream's record counts them. Another task waits for `http.disconnect`. That is two
tasks a stream, and a task switch for each burst of events, which the relay's own connection (connection.py) does without.

ASGI lacks two things. It does not say how many bytes the client has acknowledged: only those that `send` has not taken are
known. And it cannot reset a connection: a client that is dropped gets an incomplete response, and its server closes the
connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from .client import EXTENSION, Listener, until_left
from .reply import Message, Receive, Scope, Send

__all__ = ["PlainClient"]

log = logging.getLogger("relay.client")


class PlainClient:
    """A `Client` for one response. A context manager, which ends its tasks.

    receive, send      the server's
    high_water_bytes   above it the listener is paused, at a quarter of it resumed
    """

    whole_body_arrived = False  # unknown: ASGI does not say what the server has read

    def __init__(self, receive: Receive, send: Send, high_water_bytes: int) -> None:
        self._receive = receive
        self._to_server = send
        self._high_bytes, self._low_bytes = high_water_bytes, high_water_bytes // 4
        self._waiting: list[bytes] = []
        self._unsent_bytes = 0  # waiting, or in a `send` that has not returned
        self._hold: Callable[[int], None] = lambda nbytes: None
        self._listener: Listener | None = None
        self._sending: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._whole = False  # the end of the response was given to `send`
        self.full = False
        self.lost = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [task for task in (self._sending, self._watching) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def in_scope(self, scope: Scope) -> Scope:
        """The request's scope, with this client in it."""
        return {**scope, "extensions": {**(scope.get("extensions") or {}), EXTENSION: self}}

    # Called by a stream (client.Client)

    def listen(self, listener: Listener | None) -> None:
        self._listener = listener
        if listener is None:
            return
        if self.lost:
            listener.lost()
        elif self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="relay.client.watch")

    def writer(self, hold: Callable[[int], None]) -> Callable[[bytes], None]:
        self._hold = hold
        return self._write

    async def room(self) -> None:
        if self.full and not self.lost:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    def unsent(self) -> int | None:
        return self._unsent_bytes or None

    def abort(self) -> None:
        self._give_up()

    async def gone(self) -> None:
        """Returns at once: ASGI has no message for a connection that the server has seen lost."""

    async def send(self, message: Message) -> None:
        """ASGI's `send`, after all chunks that wait. Sends nothing to a client that is gone."""
        while self._sending is not None:
            await asyncio.wait([self._sending])
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._whole = True
        if not self.lost:
            with self._counted(len(message.get("body", b""))):
                await self._to_server(message)

    # Writing and watching, in tasks of the client's own

    def _write(self, body: bytes) -> None:
        if self.lost:
            return
        self._waiting.append(body)
        self._count(len(body))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_on(), name="relay.client.send")
        if not self.full and self._unsent_bytes > self._high_bytes:
            self.full = True
            if self._listener is not None:
                self._listener.paused()

    async def _send_on(self) -> None:
        """Send the chunks that wait, until none does."""
        try:
            while self._waiting and not self.lost:
                body = b"".join(self._waiting)
                self._waiting.clear()
                try:
                    await self._to_server({"type": "http.response.body", "body": body, "more_body": True})
                finally:
                    self._count(-len(body))
                if self.full and self._unsent_bytes <= self._low_bytes:
                    self._has_room()
                    if self._listener is not None:
                        self._listener.resumed()
        except Exception as error:  # noqa: BLE001  # after any error nothing more can be sent, and the stream must end
            if not isinstance(error, OSError):  # an OSError is how ASGI reports a client that is gone
                log.warning("the server's send failed", extra={"fields": {"cause": type(error).__name__}})
            self._sending = None
            self._lose()
        finally:
            self._sending = None

    async def _watch(self) -> None:
        await until_left(self._receive)
        if not self._whole:  # else `http.disconnect` may mean the end of the response
            self._lose()

    def _lose(self) -> None:
        if not self.lost:
            self._give_up()
            if self._listener is not None:
                self._listener.lost()

    def _give_up(self) -> None:
        self.lost = True
        self._count(-sum(map(len, self._waiting)))
        self._waiting.clear()
        self._has_room()
        if self._sending is not None:
            self._sending.cancel()

    def _has_room(self) -> None:
        self.full = False
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def _count(self, nbytes: int) -> None:
        self._unsent_bytes += nbytes
        self._hold(nbytes)

    @contextlib.contextmanager
    def _counted(self, nbytes: int) -> Iterator[None]:
        """Count the bytes of a `send` under way as unsent, without charging them to the stream's record."""
        self._unsent_bytes += nbytes
        try:
            yield
        finally:
            self._unsent_bytes -= nbytes
