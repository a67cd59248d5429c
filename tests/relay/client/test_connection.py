"""A client's connection: which callbacks its listener gets, and when."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from relay.client.bounds import ClientTimeouts, ConnectionBounds
from relay.client.client import client_of
from relay.client.connection import bounded_protocol
from relay.memory.requests import RequestBudget

REQUEST = b"GET /v1/topics/news HTTP/1.1\r\nhost: localhost\r\n\r\n"


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


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client's connection to a server of this app."""
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
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            # A response's task ends after its app has.
            await asyncio.wait(state.tasks or {asyncio.create_task(asyncio.sleep(0))}, timeout=60)
            # Who does not read just now is not told by the event loop that its client has left.
            for connection in list(state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)


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
        async with served(app) as (_, writer):
            writer.write(REQUEST)
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.transport.abort()
            return await asyncio.wait_for(ended.get(), 60)

    assert asyncio.run(leave()) is None
    assert listener.heard == ["lost"]


@pytest.mark.parametrize("requests", [1, 2])
def test_a_client_that_leaves_in_the_middle_is_no_error_in_the_log_also_where_it_has_asked_for_more(
    requests: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def leave() -> None:
        async with served(app) as (reader, writer):
            writer.write(REQUEST * requests)
            await reader.readuntil(b"\r\n")

    asyncio.run(leave())
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("requests", [1, 2])
def test_nor_is_one_that_is_dropped_while_the_event_loop_is_late(
    requests: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The response ends before the event loop has told that the connection is lost."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        client_of(scope).abort()

    async def leave() -> None:
        async with served(app) as (reader, writer):
            writer.write(REQUEST * requests)
            with contextlib.suppress(OSError):
                await reader.read()

    asyncio.run(leave())
    assert [record.getMessage() for record in caplog.records] == []
