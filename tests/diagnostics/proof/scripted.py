"""A server in a thread whose answers are known to the byte."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def events(count: int, size: int = 200) -> bytes:
    return b"".join(b'data: {"n":%d,"text":"%s"}\n\n' % (number, b"x" * size) for number in range(count))


Script = Callable[[asyncio.StreamWriter, int], Any]


@contextmanager
def serving(script: Script) -> Iterator[tuple[str, list[bytes], list[str]]]:
    """A server in a thread: its URL, the requests it got, and how its connections ended."""
    loop = asyncio.new_event_loop()
    requests: list[bytes] = []
    endings: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            await script(writer, len(requests) - 1)
            await writer.drain()
            endings.append("ended")
        except ConnectionResetError:
            endings.append("reset")
        except (BrokenPipeError, asyncio.IncompleteReadError):
            endings.append("gone")
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests, endings
    finally:

        async def stop() -> None:
            server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            loop.stop()

        asyncio.run_coroutine_threadsafe(stop(), loop)
        thread.join()
        loop.close()
