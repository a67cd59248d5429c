"""The caller's address for the limits: the connection's, or X-Forwarded-For from a trusted proxy."""

from __future__ import annotations

import asyncio

import pytest

from relay.app import create_app
from relay.serving.listener import bind
from relay.serving.server import RelayServer
from relay.settings import load

NOWHERE = "http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    ("trusted", "second"), [("", 429), ("10.0.0.0/8", 429), ("127.0.0.1", 502)], ids=["nobody", "another", "this one"]
)
def test_a_forwarded_address_counts_only_from_a_proxy_that_is_trusted(trusted: str, second: int) -> None:
    """One request a caller is let in: the second comes from the same peer, in another one's name."""
    assert asyncio.run(_asked_twice(trusted)) == (502, second)


async def _asked_twice(trusted: str) -> tuple[int, int]:
    settings = load(
        upstream_base_url=NOWHERE,
        upstream_retries=0,
        key_rate=0.001,
        rate_burst=1,
        trusted_proxies=trusted,
        drain_seconds=0,
    )
    serving = asyncio.Event()
    server = RelayServer(create_app(settings, NOWHERE), serving.set, lambda: None)
    with bind("127.0.0.1", 0, 32 * 1024) as listener:
        task = asyncio.create_task(server.serve([listener]))
        await serving.wait()
        try:
            return await _status(listener.getsockname(), "192.0.2.1"), await _status(
                listener.getsockname(), "192.0.2.2"
            )
        finally:
            server.should_exit = True
            await task


async def _status(address: tuple[str, int], forwarded: str) -> int:
    reader, writer = await asyncio.open_connection(*address)
    body = b'{"model": "m", "messages": [], "stream": true}'
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        b"x-forwarded-for: %b\r\ncontent-length: %d\r\n\r\n" % (forwarded.encode(), len(body)) + body
    )
    answer = await reader.read()
    writer.close()
    return int(answer.split()[1])
