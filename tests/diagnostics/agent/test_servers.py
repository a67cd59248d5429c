"""A real uvicorn in this process, read from this thread while its loop runs on another."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from diagnostics.agent.ledger import StreamLedger
from diagnostics.agent.loops.running import alive_tasks
from diagnostics.agent.operations import perform
from diagnostics.agent.servers import Servers
from diagnostics.agent.state import State

CHUNK = b"data: " + b"x" * 8192 + b"\n\n"


class Served:
    """What the tests drive: the port, the chunks that /stream still owes, and a gate that /slow waits for."""

    def __init__(self, server: uvicorn.Server) -> None:
        self.server = server
        self.port = server.servers[0].sockets[0].getsockname()[1]

    def get(self, path: str, wait: bytes = b"") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        received = b""
        while wait not in received:
            received += client.recv(65536)
        return client


def app(*more: Route) -> Any:
    async def stream(request: Any) -> Any:
        async def quiet() -> Any:
            yield b"data: first\n\n"
            await asyncio.sleep(60)

        return StreamingResponse(quiet(), media_type="text/event-stream")

    async def flood(request: Any) -> Any:
        async def loud() -> Any:
            while True:
                yield CHUNK
                await asyncio.sleep(0)  # or the loop would never come to see that the client has left

        return StreamingResponse(loud(), media_type="text/event-stream")

    async def slow(request: Any) -> Any:
        await asyncio.sleep(60)
        return PlainTextResponse("late")

    async def quick(request: Any) -> Any:
        return PlainTextResponse("done")

    return Starlette(
        routes=[
            Route("/stream/{user}", stream),
            Route("/flood", flood),
            Route("/slow", slow),
            Route("/quick", quick),
            *more,
        ]
    )


@contextlib.contextmanager
def serving(http: str, loop: str, *more: Route, wrapped: bool = False) -> Iterator[Served]:
    config = uvicorn.Config(
        app(*more), port=0, http=http, loop=loop, lifespan="off", log_level="critical", timeout_graceful_shutdown=0
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]  # not the main thread
    failed: list[BaseException] = []

    async def embedded() -> None:
        await server.serve()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(embedded() if wrapped else server.serve())
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.01)
    assert not failed, failed
    try:
        yield Served(server)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(params=["h11-asyncio", "httptools-asyncio", "httptools-uvloop", "h11-uvloop"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(*request.param.split("-")) as running:
        yield running


def told(servers: Servers, **options: Any) -> dict[str, Any]:
    return servers.to_json(servers.look(), **options)


def test_open_responses_are_found_with_route_path_and_descriptor(
    served: Served, eventually: Callable[..., Any]
) -> None:
    servers = Servers()
    with served.get("/stream/anna?token=secret", b"first"), served.get("/quick", b"done"), served.get("/slow"):
        found = eventually(lambda: (now := told(servers))["requests"] == 2 and now["open"] == 3 and now)
        assert (found["source"], found["server"], found["streams"]) == ("server", "uvicorn", 1)
        assert found["routes"]["/stream/{user}"] == {"open": 1, "transport_bytes": 0}
        rows = {row["path"]: row for row in found["top"]}
        assert rows["/stream/anna"]["response_started"] is True
        assert rows["/stream/anna"]["method"] == "GET"
        assert rows["/slow"]["response_started"] is False
        assert "secret" not in str(found)
        fd = rows["/stream/anna"]["fd"]
        assert found["fds"]["/stream/{user}"] == [fd]
        assert os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        later = {row["path"]: row for row in told(servers)["top"]}
        assert later["/stream/anna"]["age_seconds"] > rows["/stream/anna"]["age_seconds"]
        assert later["/stream/anna"]["task"] == rows["/stream/anna"]["task"] is not None
        assert found["unread"] == {}
    eventually(lambda: told(servers)["open"] == 0)
    # The gauge of a route that had streams returns to zero; it does not vanish.
    assert told(servers)["routes"]["/stream/{user}"]["open"] == 0


def test_the_transport_of_a_client_that_does_not_read_is_seen_to_fill(
    served: Served, eventually: Callable[..., Any]
) -> None:
    servers = Servers()
    with served.get("/stream/b", b"first"), served.get("/flood"):
        found = eventually(
            lambda: (now := told(servers, top=1))["routes"].get("/flood", {}).get("transport_bytes") and now
        )
        assert found["routes"]["/flood"]["transport_bytes"] > len(CHUNK)
        assert found["routes"]["/stream/{user}"]["transport_bytes"] == 0
        assert [row["route"] for row in found["top"]] == ["/flood"]


def test_what_a_request_deletes_is_freed_though_its_server_was_looked_for(eventually: Callable[..., Any]) -> None:
    """Servers are looked for in the locals of all tasks' coroutines, and until Python 3.12 a frame keeps what was read."""
    freed, over = threading.Event(), threading.Event()
    things: list[weakref.ref[Any]] = []

    async def frees(request: Any) -> Any:
        thing = StreamLedger()
        things.append(weakref.ref(thing))
        while not freed.is_set():
            await asyncio.sleep(0.01)
        del thing
        while not over.is_set():
            await asyncio.sleep(0.01)
        return PlainTextResponse("done")

    with serving("h11", "asyncio", Route("/frees", frees)) as running, running.get("/frees"):
        eventually(lambda: things)
        assert told(Servers())["requests"] == 1
        assert things[0]() is not None
        freed.set()
        try:
            eventually(lambda: things[0]() is None)
        finally:
            over.set()


def test_a_server_behind_wrappers_is_found() -> None:
    with serving("h11", "asyncio", wrapped=True) as running, running.get("/stream/a", b"first"):
        assert told(Servers())["streams"] == 1


def test_without_a_known_server_it_says_that_only_sockets_tell() -> None:
    found = told(Servers())
    assert (found["source"], found["server"]) == ("sockets", None)
    # On 3.14 a loop written in C, which another test may have imported, could run a server unseen: only that is said.
    assert [reason for reason in found["unknown"] if "is imported, which is not written in Python" not in reason] == []


def test_streams_are_unknown_where_the_running_server_is_not_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diagnostics.agent.servers.uvicorn._running_servers", lambda: iter(()))
    servers = Servers()
    with serving("h11", "asyncio") as running, running.get("/stream/a", b"first"):
        # As with `uvicorn.run`, a thread is inside of the server's module: this test starts only the coroutine.
        monkeypatch.setattr("diagnostics.agent.servers.uvicorn._serves", lambda: True)
        servers = Servers()
        (reason,) = told(servers)["unknown"]
        assert told(servers)["source"] == "sockets"
    assert "the running Server not found where 0.54 keeps it" in reason
    assert servers.unseen == reason


def test_streams_are_unknown_where_the_connections_are_not_where_they_were() -> None:
    servers = Servers()
    with serving("h11", "asyncio") as running, running.get("/stream/a", b"first"):
        connections = running.server.server_state.connections
        del running.server.server_state.connections
        (reason,) = told(servers)["unknown"]
        running.server.server_state.connections = connections
        assert "Server.server_state.connections not found" in reason
        assert told(servers)["streams"] == 1
        (protocol,) = connections
        cycle = protocol.cycle
        del protocol.cycle
        (reason,) = told(Servers())["unknown"]
        protocol.cycle = cycle
        assert "H11Protocol.cycle not found" in reason
    assert told(servers)["unknown"] == []


def test_nothing_of_the_service_is_kept_alive(eventually: Callable[..., Any]) -> None:
    servers = Servers()
    with serving("h11", "asyncio") as running:
        client = running.get("/stream/a", b"first")
        assert told(servers)["streams"] == 1
        (protocol,) = running.server.server_state.connections
        kept = [weakref.ref(protocol), weakref.ref(protocol.cycle), weakref.ref(running.server)]
        del protocol
        client.close()
    del running
    eventually(lambda: gc.collect() >= 0 and [ref() for ref in kept] == [None, None, None])
    assert told(servers)["source"] == "sockets"


def test_a_server_that_changes_all_the_time_is_read_without_an_error() -> None:
    servers = Servers()
    with serving("h11", "asyncio") as running:
        ending = threading.Event()

        def churn() -> None:
            while not ending.is_set():
                with running.get("/quick", b"done"), running.get("/stream/a"):
                    pass

        threads = [threading.Thread(target=churn) for _ in range(3)]
        for thread in threads:
            thread.start()
        looks = [told(servers) for _ in range(300)]
        ending.set()
        for thread in threads:
            thread.join()
    assert {look["source"] for look in looks} == {"server"}


def test_ledger_streams_are_joined_with_their_connection_by_task() -> None:
    state = State()
    state.ledgers.append(StreamLedger())
    with serving("httptools", "uvloop") as running, running.get("/stream/a", b"first"), running.get("/slow"):
        (row,) = (row for row in perform(state, "connections", {})["top"] if row["response_started"])
        record = state.ledgers[0].open("/chat")
        task = next(task for task in alive_tasks() if id(task) == row["task"])
        record.task = weakref.ref(task)
        record.hold(5)
        state.look.forget()  # one that took long is good for a while
        reading = perform(state, "reading", {})
        (stream,) = reading["ledger"]["top"]
        assert (stream["fd"], stream["buffered_bytes"], stream["transport_bytes"]) == (row["fd"], 5, 0)
        assert reading["connections"]["fds"]["/chat"] == [row["fd"]]
        record.close()


def test_the_number_of_routes_is_bounded() -> None:
    servers = Servers()
    assert {servers._known_route(f"/{number}") for number in range(200)} >= {"(other)", "/0", "/99"}
    assert len(servers._routes) <= 101
