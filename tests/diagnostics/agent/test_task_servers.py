"""Real servers in this process that serve with tasks, read from this thread while their loops run on others."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
import threading
import weakref
from asyncio.tasks import _register_task  # type: ignore[attr-defined]
from collections.abc import Callable, Iterator
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import pytest
import tornado.web
from aiohttp import web

from diagnostics.agent.readings.running.streams import open_streams
from diagnostics.agent.servers import Servers
from diagnostics.agent.servers.aiohttp import Aiohttp
from diagnostics.agent.servers.hypercorn import Hypercorn
from diagnostics.agent.servers.kind import ServerKind
from diagnostics.agent.servers.releases import CHECKED, installed, moved
from diagnostics.agent.servers.tornado import Tornado

KINDS: dict[str, type[ServerKind]] = {"aiohttp": Aiohttp, "hypercorn": Hypercorn, "tornado": Tornado}


async def serve_aiohttp(listener: socket.socket, ended: asyncio.Event, kept: list[Any]) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        kept.append(weakref.ref(request))
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        while request.transport is not None:
            await asyncio.sleep(0.01)
        return response

    async def quick(request: web.Request) -> web.Response:
        return web.Response(text="done")

    app = web.Application()
    app.add_routes([web.get("/stream/{user}", stream), web.get("/quick", quick)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    await ended.wait()
    await runner.cleanup()


async def serve_hypercorn(listener: socket.socket, ended: asyncio.Event, kept: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError("no lifespan here")
        kept.append(weakref.ref(send.__self__))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        quick = scope["path"] == "/quick"
        await send({"type": "http.response.body", "body": b"done" if quick else b"first", "more_body": not quick})
        while not quick and (await receive())["type"] != "http.disconnect":
            pass

    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]  # hypercorn's from now on
    config.loglevel = "CRITICAL"
    await hypercorn.asyncio.serve(app, config, shutdown_trigger=ended.wait)


async def serve_tornado(listener: socket.socket, ended: asyncio.Event, kept: list[Any]) -> None:
    class Stream(tornado.web.RequestHandler):
        async def get(self, user: str) -> None:
            kept.append(weakref.ref(self))
            self.write("first")
            await self.flush()
            while not self.request.connection.stream.closed():  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)

    class Quick(tornado.web.RequestHandler):
        def get(self) -> None:
            self.write("done")

    app = tornado.web.Application([(r"/stream/([^/]+)", Stream), (r"/quick", Quick)], log_function=lambda _: None)
    server = tornado.httpserver.HTTPServer(app)
    server.add_sockets([listener])
    await ended.wait()
    server.stop()
    await server.close_all_connections()


SERVING = {"aiohttp": serve_aiohttp, "hypercorn": serve_hypercorn, "tornado": serve_tornado}
ROUTES = {"aiohttp": "/stream/{user}", "hypercorn": "(unrouted)", "tornado": "/stream/([^/]+)"}


class Served:
    def __init__(self, name: str, port: int, kept: list[Any]) -> None:
        self.name, self.port, self.kept = name, port, kept

    def get(self, path: str, wait: bytes = b"") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return self.again(client, path, wait)

    def again(self, client: socket.socket, path: str, wait: bytes = b"") -> socket.socket:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        received = b""
        while wait not in received:
            received += client.recv(65536)
        return client


@contextlib.contextmanager
def serving(name: str) -> Iterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    port = listener.getsockname()[1]
    kept: list[Any] = []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    begun = threading.Event()
    failed: list[BaseException] = []

    async def main() -> None:
        ended = asyncio.Event()
        loops.append((asyncio.get_running_loop(), ended))
        begun.set()
        await SERVING[name](listener, ended, kept)

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001
            failed.append(error)
            begun.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(30)
    try:
        yield Served(name, port, kept)
    finally:
        loop, ended = loops[0]
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        assert not thread.is_alive()
        with contextlib.suppress(OSError):
            listener.close()
        assert not failed, failed


@pytest.fixture(params=sorted(SERVING))
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(request.param) as running:
        yield running


def told(servers: Servers, **options: Any) -> dict[str, Any]:
    return servers.to_json(servers.look(), **options)


def test_open_responses_are_found_with_route_path_and_descriptor(
    served: Served, eventually: Callable[..., Any]
) -> None:
    servers = Servers()
    with served.get("/stream/anna?token=secret", b"first"), served.get("/quick", b"done"):
        found = eventually(lambda: (now := told(servers)).get("open") == 2 and now["requests"] == 1 and now)
        assert (found["server"], found["unknown"], found["unread"]) == (served.name, [], {})
        assert found["routes"][ROUTES[served.name]] == {"open": 1, "transport_bytes": 0}
        (row,) = found["top"]
        assert (row["method"], row["path"], row["response_started"]) == ("GET", "/stream/anna", True)
        assert found["fds"][ROUTES[served.name]] == [row["fd"]]
        assert "secret" not in str(found)
        (later,) = told(servers)["top"]
        assert later["age_seconds"] > row["age_seconds"]
        assert later["task"] == row["task"] != 0
    eventually(lambda: told(servers)["open"] == 0)
    assert told(servers)["routes"][ROUTES[served.name]]["open"] == 0


def test_a_second_request_on_a_connection_is_another_one(served: Served, eventually: Callable[..., Any]) -> None:
    servers = Servers()
    with served.get("/quick", b"done") as client:
        eventually(lambda: told(servers).get("open") == 1 and told(servers)["requests"] == 0)
        served.again(client, "/stream/b", b"first")
        eventually(lambda: told(servers)["streams"] == 1)
        assert told(servers)["open"] == 1


def test_nothing_of_the_service_is_kept_alive(served: Served, eventually: Callable[..., Any]) -> None:
    servers = Servers()
    with served.get("/stream/a", b"first"):
        eventually(lambda: told(servers).get("streams") == 1)
    eventually(lambda: told(servers)["streams"] == 0)
    eventually(lambda: gc.collect() >= 0 and [ref() for ref in served.kept] == [None])


def test_a_server_that_changes_all_the_time_is_read_without_an_error(
    served: Served, eventually: Callable[..., Any]
) -> None:
    servers = Servers()
    ending = threading.Event()
    failures: list[Exception] = []

    def churn() -> None:
        while not ending.is_set():
            try:
                with served.get("/quick", b"done"), served.get("/stream/a"):
                    pass
            except Exception as error:  # noqa: BLE001
                failures.append(error)
                return

    threads = [threading.Thread(target=churn) for _ in range(3)]
    with served.get("/stream/steady", b"first"):
        eventually(lambda: told(servers).get("streams") == 1)
        for thread in threads:
            thread.start()
        looks = [told(servers, top=100) for _ in range(300)]
        ending.set()
        for thread in threads:
            thread.join()
        eventually(lambda: told(servers)["open"] == 1)
    assert not failures
    eventually(lambda: told(servers)["open"] == 0)
    assert {look["source"] for look in looks} == {"server"}
    assert {str(look["unknown"]) for look in looks} == {"[]"}
    # Whatever comes and goes beside it, the one that stays is seen each time.
    assert all("/stream/steady" in {row["path"] for row in look["top"]} for look in looks)


def test_streams_are_unknown_where_what_is_read_of_a_request_has_moved(
    served: Served, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    def reads(self: ServerKind, thing: Any, request: Any) -> bool:
        return bool(thing.a_name_of_another_release)

    monkeypatch.setattr(KINDS[served.name], "refresh", reads)
    with served.get("/stream/a", b"first"):
        found = eventually(lambda: (now := told(Servers()))["unknown"] and now)
    assert (found["source"], found["server"]) == ("sockets", None)
    (reason,) = found["unknown"]
    assert reason.startswith(f"{served.name} {installed(served.name)}: ")
    assert f".a_name_of_another_release not found where {CHECKED[served.name]} keeps it" in reason


def test_streams_are_unknown_where_the_locals_of_the_serving_task_have_moved(
    served: Served, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    monkeypatch.setattr(KINDS[served.name], "thing", lambda self, task, names: names["moved"])
    with served.get("/stream/a", b"first"):
        (reason,) = eventually(lambda: told(Servers())["unknown"])
    assert "the local variable 'moved' of the task that serves not found" in reason


def test_streams_are_unknown_where_the_tasks_that_serve_have_moved(
    served: Served, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    monkeypatch.setattr(KINDS[served.name], "roles", {})
    monkeypatch.setattr(KINDS[served.name], "listens", lambda self: False)
    with served.get("/stream/a", b"first"):
        (reason,) = eventually(
            lambda: [reason for reason in told(Servers())["unknown"] if reason.startswith(served.name)]
        )
    assert "the tasks that serve" in reason


def test_what_a_stream_keeps_alive_starts_from_its_task_and_its_request(
    served: Served, eventually: Callable[..., Any]
) -> None:
    with served.get("/stream/a", b"first"), served.get("/stream/b", b"first"):
        streams = eventually(lambda: len(found := open_streams([])) == 2 and found)
        assert [stream.route for stream in streams] == [ROUTES[served.name]] * 2
        things = [reference() for reference in served.kept]
        for thing in things:
            assert sum(thing in stream.roots for stream in streams) == 1
        del streams, things, thing


def test_a_task_that_is_none_is_passed_over() -> None:
    """As granian registers one for `--task-impl rust`: before Python 3.13, to ask it for its coroutine ends the process."""

    class Uninitialised(asyncio.Task):  # type: ignore[type-arg]
        def __init__(self) -> None:
            _register_task(self)

        def __del__(self) -> None:
            pass

    task = Uninitialised()
    assert told(Servers())["source"] == "sockets"
    del task


def test_a_server_that_is_not_loaded_costs_nothing_and_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in CHECKED:
            monkeypatch.delitem(sys.modules, name)
    servers = Servers()
    assert servers.look() is None
    assert servers._tasks is None
    assert not [name for name in sys.modules if name.partition(".")[0] in CHECKED]


def test_the_release_in_a_reason_is_the_installed_one_where_that_can_be_told() -> None:
    assert installed("aiohttp") == __import__("aiohttp").__version__
    assert moved("hypercorn", "x").startswith(f"hypercorn {installed('hypercorn')}: x not found where 0.18 keeps it")
    assert moved("sanic", "x").startswith("sanic (unknown release): ")


@pytest.mark.parametrize("server", sorted(CHECKED.keys() - {"sanic"}))
def test_the_table_has_the_release_that_these_tests_run(server: str) -> None:
    __import__(server)
    release = installed(server)
    assert release is not None
    assert release.startswith(CHECKED[server]), "check the new release's names and move the table on"
