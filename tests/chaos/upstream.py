"""The upstream: raw sockets in a process of its own. `python -m tests.chaos.upstream` prints its port and ends with its stdin.

A request's model says what is done to it (faults.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading

from .faults import FAULTS, Connection, Script

__all__ = ["main"]


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


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True).start()
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
