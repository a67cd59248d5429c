"""The upstream: raw sockets in a process of its own, which ends with its stdin.

    python -m tests.chaos.upstream PORT PORT PORT [CERTIFICATE]     prints its three ports; 0 takes any free one

first    HTTP; a request's model says what is done to it (faults.py)
second   TLS with that certificate, which nobody has a reason to believe; without one, as the third
third    whatever comes is answered in plain text: who wants to speak TLS cannot
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
import threading

from .faults import FAULTS, Connection, Script

__all__ = ["main", "until_stdin_ends"]


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, request after request."""
    try:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            while await _answer(await reader.readuntil(b"\r\n\r\n"), reader, writer):
                pass
    finally:
        writer.close()


async def _answer(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer one request; whether another one may follow."""
    if head.startswith(b"GET /v1/models"):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()
        return True
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    length = int(lengths[0])
    # The model comes first: what a fault does not want to read may be long.
    beginning = await reader.readexactly(min(length, 200))
    model = beginning.partition(b'"model": "')[2].partition(b'"')[0].decode()
    script = Script.of(model, streams=b'"stream": true' in beginning)
    if script.fault != "reads_nothing":
        left = length - len(beginning)
        while left > 0:
            piece = await reader.read(min(left, 65536))
            if not piece:
                return False
            left -= len(piece)
    connection = Connection(reader, writer, script)
    await FAULTS[script.fault](connection)
    return connection.keeps


async def speak_no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the first bytes, whatever they are, with a refusal of HTTP."""
    with contextlib.suppress(OSError):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
    writer.close()


async def until_stdin_ends() -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True).start()
    await ended.wait()


async def main(first: int, second: int, third: int, certificate: str = "") -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if certificate:
        tls.load_cert_chain(certificate)
    servers = [
        await asyncio.start_server(serve, "127.0.0.1", first, backlog=4096),
        await (
            asyncio.start_server(serve, "127.0.0.1", second, ssl=tls)
            if certificate
            else asyncio.start_server(speak_no_tls, "127.0.0.1", second)
        ),
        await asyncio.start_server(speak_no_tls, "127.0.0.1", third),
    ]
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # handshakes that clients break off
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await until_stdin_ends()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:4]), *sys.argv[4:]))
