"""A client's connection: which callbacks its listener gets, and when."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from relay.client.bounds import ClientTimeouts, ConnectionBounds
from relay.client.client import client_of
from relay.client.connection import bounded_protocol
from relay.memory.requests import RequestBudget


class Hears:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def paused(self) -> None:
        self.heard.append("paused")

    def resumed(self) -> None:
        self.heard.append("resumed")

    def lost(self) -> None:
        self.heard.append("lost")


def test_who_listens_to_a_client_that_has_left_already_is_told_so() -> None:
    """A subscriber may leave while its topic is looked for, before anybody listens."""
    listener = Hears()
    ended: asyncio.Queue[BaseException | None] = asyncio.Queue()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            client = client_of(scope)
            while not client.lost:
                await asyncio.sleep(0.01)
            client.listen(listener)
            client.listen(None)
        except Exception as error:
            ended.put_nowait(error)
            raise
        ended.put_nowait(None)

    async def leave() -> BaseException | None:
        bounds = ConnectionBounds(
            ClientTimeouts(head=5, body=5, write=5), most=0, budget=RequestBudget(1 << 20), reject=lambda *_: None
        )
        config = uvicorn.Config(app, http=bounded_protocol(65536, bounds), ws="none", lifespan="off", log_config=None)
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: config.http_protocol_class(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"GET /v1/topics/news HTTP/1.1\r\nhost: localhost\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.transport.abort()
            return await asyncio.wait_for(ended.get(), 60)

    assert asyncio.run(leave()) is None
    assert listener.heard == ["lost"]
