"""What a client is given, how it reads an answer, and how that is judged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from .. import payload
from ..faults import HARMLESS, Script

__all__ = ["Mix", "Response", "Wrong", "expected", "judge", "read_response"]

ERROR = b'data: {"error":'
ENDLESS = ("endless_body", "endless_event", "endless_comments")


class Wrong(Exception):  # it reads as what it says
    """A client saw what it may not see."""


@dataclass
class Mix:
    """What one client is given.

    ending   the relay is told to end meanwhile
    late     whether this process has been stopped for longer than a client may be
    exact    bytes of streams that came whole, each as the upstream sent it
    """

    address: tuple[str, int]
    script: Script
    chance: random.Random
    ending: bool = False
    late: Callable[[], bool] = lambda: False
    exact: int = 0

    @property
    def excused(self) -> bool:
        """Whether its answer may be cut, or not come: the relay ends, or clients had no processor for longer than it waits."""
        return self.ending or self.late()

    @property
    def model(self) -> str:
        return f"{self.script.fault}:{self.script.seed}:{self.script.count}"

    def post(self, padding: int = 0, *, path: str = "/v1/chat/completions") -> bytes:
        body = json.dumps(
            {"model": self.model, "stream": self.script.streams, "messages": [], "padding": "x" * padding}
        ).encode()
        return b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (path.encode(), len(body)) + body

    @contextlib.asynccontextmanager
    async def connected(
        self, receive_buffer: int = 0
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        made = socket.socket()
        if receive_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, self.address)
        reader, writer = await asyncio.open_connection(sock=made, limit=65536)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


@dataclass
class Response:
    """`whole`: it came to its end as its framing says."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    whole: bool


async def read_response(reader: asyncio.StreamReader, pause: float = 0.0, most: int = 1 << 40) -> Response | None:
    """A response; None where the connection ended before its head did. `pause` after each piece; no more than `most` bytes."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, OSError):
        return None
    first, *lines = head[:-4].split(b"\r\n")
    status = int(first.split()[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    body = bytearray()
    whole = False
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        async for piece in _pieces(reader, headers, status):
            body += piece
            if len(body) >= most:
                return Response(status, headers, bytes(body), False)
            if pause:
                await asyncio.sleep(pause)
        whole = True
    return Response(status, headers, bytes(body), whole)


async def _pieces(reader: asyncio.StreamReader, headers: dict[bytes, bytes], status: int) -> AsyncIterator[bytes]:
    if headers.get(b"transfer-encoding") == b"chunked":
        while True:
            size = int(await reader.readuntil(b"\r\n"), 16)
            if not size:
                await reader.readexactly(2)
                return
            for at in range(0, size, 4096):
                yield await reader.readexactly(min(4096, size - at))
            await reader.readexactly(2)
    left = 0 if status in (204, 304) else int(headers.get(b"content-length", b"0"))
    while left:
        piece = await reader.readexactly(min(4096, left))
        left -= len(piece)
        yield piece


def expected(script: Script) -> bytes:
    """What the client is to get where nothing goes wrong."""
    if not script.streams:
        return payload.answer(script.seed, script.count * 1000)
    body = payload.stream(script.seed, script.count, b"\r\n" if script.fault == "crlf" else b"\n")
    return b"\xef\xbb\xbf" + body if script.fault == "byte_order_mark" else body


def judge(mix: Mix, response: Response | None, *, stayed: bool = True) -> str:
    """What a client saw. `stayed`: it read as fast as it could, to the end."""
    script = mix.script
    harmless = script.fault in HARMLESS
    if response is None:
        if stayed and not mix.excused:
            raise Wrong("the connection ended without an answer")
        return "nothing"
    if response.status != 200:
        if stayed and response.whole and (response.status >= 400 or script.streams):  # another success is handed on
            _check_error(response)
        if harmless and stayed and not mix.excused:
            raise Wrong(f"status {response.status} although nothing was wrong: {response.body[:200]!r}")
        return f"status {response.status}"
    wanted = expected(script)
    if (response.whole and response.body == wanted) or _goes_on(script, response.body, wanted):
        mix.exact += len(wanted)
        return "whole"
    if harmless and stayed and not mix.excused:
        at = next((i for i, (a, b) in enumerate(zip(response.body, wanted, strict=False)) if a != b), -1)
        raise Wrong(
            f"not what the upstream said: {len(response.body)} bytes of {len(wanted)}, whole {response.whole}, "
            f"differs at {at}, ends with {response.body[-120:]!r}"
        )
    if script.fault in ENDLESS:
        return "endless"
    _check_prefix(script, response, wanted, stayed=stayed and not mix.excused)
    return "told" if ERROR in response.body else "cut"


def _goes_on(script: Script, body: bytes, wanted: bytes) -> bool:
    """What comes in one piece with the end marker is handed on with it."""
    return script.fault == "goes_on_after_the_end" and body.startswith(wanted)


def _check_prefix(script: Script, response: Response, wanted: bytes, *, stayed: bool) -> None:
    """What came is what the upstream said, up to where it broke off, and then an error."""
    said, error, _ = response.body.partition(ERROR)
    said = said.removesuffix(b": hb\n\n") if said.endswith(b": hb\n\n") else said
    said = said.replace(b": hb\n\n", b"")
    if not wanted.startswith(said) and not (said.endswith(b"\n\n") and wanted.startswith(said[:-2])):
        at = next((i for i, (a, b) in enumerate(zip(said, wanted, strict=False)) if a != b), -1)
        raise Wrong(f"bytes that the upstream did not send, from {at}: {said[at : at + 120]!r}")
    if stayed and script.streams and not error and response.whole:
        raise Wrong(f"an end without an error and without the end marker: {response.body[-120:]!r}")


def _check_error(response: Response) -> None:
    try:
        json.loads(response.body)["error"]
    except (ValueError, KeyError, TypeError):
        raise Wrong(f"status {response.status} with {response.body[:200]!r}, which is no error of the API") from None
