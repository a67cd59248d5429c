"""The middleware on a small FastAPI app that is not the relay, and on raw ASGI, served by a real uvicorn."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from diagnostics import StreamLedger, instrument

FASTAPI = """
import asyncio, json
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from diagnostics import instrument

app = FastAPI()
ledger = instrument(app)

@app.get("/count/{n}")
async def count(n: int, pause: float = 0.0):
    async def events():
        for number in range(n):
            yield f"data: {number}\\n\\n"
            await asyncio.sleep(pause)
    return StreamingResponse(events(), media_type="text/event-stream")

@app.get("/held/{n}")
async def held(n: int):
    async def events():
        with ledger.stream("/held") as stream:
            stream.hold(n)
            stream.received(n, events=1)
            yield b"data: held\\n\\n"
            await asyncio.sleep(0.3)
            stream.release(n)
    return StreamingResponse(events(), media_type="text/event-stream")

@app.get("/fails")
async def fails():
    async def events():
        yield b"data: 1\\n\\n"
        raise RuntimeError("the upstream broke")
    return StreamingResponse(events(), media_type="text/event-stream")

@app.get("/plain")
async def plain():
    return {"not": "a stream"}

@app.get("/ledger")
async def show():
    return ledger.to_json()
"""

RAW = """
import json
from diagnostics import instrument

async def raw(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan here")
    if scope["path"] == "/ledger":
        body, kind = json.dumps(app.to_json()).encode(), b"application/json"
    else:
        body, kind = b"data: 1\\r\\n\\r\\ndata: 2\\r\\n\\r\\n", b"text/event-stream; charset=utf-8"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})

app = instrument(raw, routes=["/known"])
"""


def route(http: Callable[..., Any], service: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = http(f"{service.url}/ledger").json()["routes"].get(name, {})
    return found


def test_a_stream_is_counted_under_its_route_and_a_plain_response_is_none(observed: Any, http: Any) -> None:
    service = observed(FASTAPI)
    assert http(f"{service.url}/count/3").body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert http(f"{service.url}/plain").status == 200
    row = route(http, service, "/count/{n}")
    assert (row["open"], row["events_out"], row["bytes_out"]) == (0, 3, 27)
    assert row["closed"]["completed"] == 1
    assert sum(row["time_to_first_event"]["counts"]) == 1
    assert sum(row["inter_event"]["counts"]) == 2
    assert set(http(f"{service.url}/ledger").json()["routes"]) == {"/count/{n}"}


def test_what_a_handler_tells_is_added_to_the_same_record(observed: Any, http: Any, eventually: Any) -> None:
    service = observed(FASTAPI)
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET /held/5000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        row = eventually(lambda: route(http, service, "/held") or None)
        assert (row["open"], row["buffered_bytes"], row["bytes_in"]) == (1, 5000, 5000)
        while client.recv(4096):
            pass
    row = eventually(lambda: route(http, service, "/held").get("open") == 0 and route(http, service, "/held"))
    assert (row["buffered_bytes"], row["events_in"], row["events_out"]) == (0, 1, 1)
    rows = http(f"{service.url}/ledger").json()["routes"].values()
    assert sum(sum(row["closed"].values()) for row in rows) == row["closed"]["completed"] == 1


def test_a_client_that_leaves_is_named_and_leaves_nothing_behind(observed: Any, http: Any, eventually: Any) -> None:
    service = observed(FASTAPI)
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET /count/100000?pause=0.01 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(4096)
        eventually(lambda: route(http, service, "/count/{n}").get("open") == 1)
    row = eventually(lambda: not route(http, service, "/count/{n}")["open"] and route(http, service, "/count/{n}"))
    assert row["closed"]["client_disconnected"] == 1
    assert row["closed"]["completed"] == 0


def test_an_error_after_the_first_event_is_an_upstream_error(observed: Any, http: Any) -> None:
    service = observed(FASTAPI)
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET /fails HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while client.recv(4096):
            pass
    assert route(http, service, "/fails")["closed"]["upstream_error"] == 1


def test_a_raw_asgi_app_without_lifespan_is_wrapped_and_its_unlisted_paths_are_one_route(
    observed: Any, http: Any
) -> None:
    service = observed(RAW)
    for path in ("/known", "/user/1", "/user/2"):
        assert http(service.url + path).body.count(b"data") == 2
    routes = http(f"{service.url}/ledger").json()["routes"]
    assert {name: row["events_out"] for name, row in routes.items()} == {"/known": 2, "(unrouted)": 4}


def test_the_ledger_of_a_framework_app_is_a_ledger_and_the_app() -> None:
    from starlette.applications import Starlette

    app = Starlette()
    ledger = instrument(app)
    assert isinstance(ledger, StreamLedger)
    assert ledger.app is app


@pytest.mark.parametrize(
    ("bodies", "events"),
    [
        ([b"data: 1\n\n", b"data: 2\n\n"], 2),
        ([b"data: 1\n\ndata: 2\n\n"], 2),
        ([b"data: 1\n", b"\ndata: 2\n\n"], 2),
        ([b"data: 1\r\n\r\n"], 1),
        ([b"data: 1\n"], 0),
        ([b""], 0),
    ],
)
def test_events_are_counted_wherever_the_chunks_are_cut(bodies: list[bytes], events: int) -> None:
    from diagnostics.agent.instrument.asgi import _Meter

    ledger = StreamLedger()
    record = ledger.open("/s")
    meter = _Meter(record)
    for body in bodies:
        meter.sent({"type": "http.response.body", "body": body, "more_body": True})
    assert record.events_out == events
    assert record.bytes_out == sum(map(len, bodies))


OUTLIVING = """
import asyncio
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask
from diagnostics import instrument

app = FastAPI()
ledger = instrument(app)
started, may_end = set(), asyncio.Event()

async def work(name):
    with ledger.stream(name) as stream:
        stream.sent(10, events=1)
        await may_end.wait()

def start(name):
    task = asyncio.create_task(work(name))
    started.add(task)
    task.add_done_callback(started.discard)

@app.get("/starts")
async def starts():
    start("/outlives")
    return {}

@app.get("/waits")
async def waits():
    start("/outlives")
    await asyncio.sleep(0)  # it has adopted the request's record
    return {}

@app.get("/fails")
async def fails():
    start("/outlives")
    await asyncio.sleep(0)
    raise RuntimeError("not the stream's fault")

@app.get("/background")
async def background():
    from fastapi.responses import JSONResponse
    return JSONResponse({}, background=BackgroundTask(work, "/behind"))

@app.get("/ends")
async def ends():
    may_end.set()
    return {}

@app.get("/ledger")
async def show():
    return ledger.to_json()
"""


def test_a_stream_in_a_task_that_outlives_its_request_is_open_until_it_ends(
    observed: Any, http: Any, eventually: Any
) -> None:
    service = observed(OUTLIVING)
    ways = ["starts", "waits", "fails"] * 20
    assert {http(f"{service.url}/{way}").status for way in ways} == {200, 500}
    eventually(lambda: http(f"{service.url}/ledger").json()["open"] == len(ways))
    assert http(f"{service.url}/background").status == 200
    eventually(lambda: route(http, service, "/behind").get("open") == 1)
    http(f"{service.url}/ends")
    eventually(lambda: http(f"{service.url}/ledger").json()["open"] == 0)
    outlived, behind = route(http, service, "/outlives"), route(http, service, "/behind")
    assert outlived["closed"]["completed"] == outlived["events_out"] == len(ways)
    assert behind["closed"]["completed"] == behind["events_out"] == 1


PIPELINED = """
import asyncio, json
from diagnostics import StreamLedger
from diagnostics.agent.instrument.asgi import LedgerMiddleware

ledger = StreamLedger()

async def plain(scope, receive, send):
    kind = b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind), (b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})
    if scope["path"] == "/lingers":  # and ends after the server has begun the connection's next request
        await asyncio.sleep(0.015)

counted = LedgerMiddleware(plain, ledger)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await counted(scope, receive, send)
    elif scope["path"] in ("/plain", "/lingers"):
        await counted(scope, receive, send)
    elif scope["path"] == "/stream":
        # outside of the middleware, as a service may do for its hottest route
        with ledger.stream("/stream") as stream:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
            for _ in range(3):
                await send({"type": "http.response.body", "body": b"data: 1\\n\\n", "more_body": True})
                stream.sent(9, events=1)
                await asyncio.sleep(0.01)
            await send({"type": "http.response.body", "body": b""})
    else:
        body = json.dumps(ledger.to_json()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""


@pytest.mark.parametrize("parser", ["h11", "httptools"])
def test_a_request_and_a_stream_pipelined_behind_it_leave_nothing_open(
    observed: Any, http: Any, eventually: Any, parser: str
) -> None:
    service = observed(PIPELINED, "--http", parser)
    host, port = service.url.removeprefix("http://").split(":")
    paths = [b"/plain", b"/lingers"] * 15
    pairs = len(paths)
    clients = [socket.create_connection((host, int(port)), 60) for _ in paths]
    for client, path in zip(clients, paths, strict=True):
        first = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path
        client.sendall(first + b"GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    for client in clients:
        with client:
            answer = b""
            while part := client.recv(65536):
                answer += part
        assert answer.count(b"data: 1") == 3
    eventually(lambda: http(f"{service.url}/ledger").json()["open"] == 0, patience=20)
    row = route(http, service, "/stream")
    assert row["closed"]["completed"] == pairs
    assert row["events_out"] == 3 * pairs
