"""A collector of OTLP over HTTP that takes what comes and keeps nothing, in a process of its own, so that it can be killed.

`python -m tests.chaos.otlp PORT` prints its port (0: any free one) and ends with its stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from .upstream import until_stdin_ends

__all__ = ["main"]


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, request after request."""
    try:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
    finally:
        writer.close()


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await until_stdin_ends()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
