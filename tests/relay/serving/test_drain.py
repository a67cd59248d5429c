"""The end of a server with open streams, in this process, where its parts can be looked at when it has returned."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from contextlib import closing

import uvloop

from relay.app import create_app
from relay.serving.listener import bind
from relay.serving.server import RelayServer
from relay.settings import load

TOPIC = "/v1/topics/news"
# Of a farewell's half a second (client/reply.py); both are timers of one loop, so that a slow machine makes both late.
READS_AFTER_SECONDS = 0.3


async def _until_it_ends(connection: socket.socket) -> bytes:
    whole = b""
    while chunk := await asyncio.get_running_loop().sock_recv(connection, 65536):
        whole += chunk
    return whole


async def _asked(address: tuple[str, int], request: bytes) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, address)
    await asyncio.get_running_loop().sock_sendall(connection, request)
    return connection


async def _ended_twice() -> bytes:
    """What a subscriber gets who reads again a little after the second signal."""
    relay = create_app(load(upstream_base_url="http://127.0.0.1:9/v1", drain_seconds=60), "http://127.0.0.1:9/v1")
    serving = asyncio.Event()
    server = RelayServer(relay, serving.set, lambda: None)
    with bind("127.0.0.1", 0, 32 * 1024) as listener:
        task = asyncio.create_task(server.serve([listener]))
        left: list[object] = []  # with the process they would be cut off where they are
        task.add_done_callback(lambda _: left.extend(server.server_state.connections))
        await serving.wait()
        address = listener.getsockname()
        with closing(await _asked(address, f"GET {TOPIC} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())) as slow:
            while not relay.open_streams.all():
                await asyncio.sleep(0.01)
            body = json.dumps("x" * 8000).encode()
            headers = f"Host: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            head = f"POST {TOPIC} HTTP/1.1\r\n{headers}".encode()
            for _ in range(30):
                with closing(await _asked(address, head + body)) as publisher:
                    assert b" 201 " in await _until_it_ends(publisher)
            for _ in range(2):
                server.handle_exit(signal.SIGTERM, None)
            await asyncio.sleep(READS_AFTER_SECONDS)
            got = await _until_it_ends(slow)
            await task
            assert not left
            return got


def test_a_second_signal_ends_each_stream_with_its_last_event() -> None:
    got = uvloop.run(_ended_twice())
    assert b"shutting_down" in got
    assert got.endswith(b"0\r\n\r\n")
