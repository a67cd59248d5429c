"""Verdicts on live services under `diagnostics run`, each blown up in one way, and one that is only busy."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

# Readings come twenty times as fast as they do in earnest: a trend takes 36 of them after the warm-up.
FAST = {"DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.05", "DIAGNOSTICS_RECORD_SECONDS": "60"}

APP = """
import asyncio, ctypes, itertools, os, socket, tracemalloc
from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse
from prometheus_client import Gauge
from diagnostics import instrument

app = FastAPI()
ledger = instrument(app)
kept, tasks = [], []
numbers = itertools.count()
malloc = ctypes.CDLL(None).malloc
malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
memset = ctypes.CDLL(None).memset
memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

class Notice:
    def __init__(self):
        self.text = bytes(2000)

async def grow(step):
    while True:
        step()
        await asyncio.sleep(0.02)

def objects():
    kept.extend(Notice() for _ in range(20))

def native():
    for _ in range(10):
        memset(malloc(4000), 1, 4000)

async def heartbeat():
    await asyncio.Event().wait()

def orphans():
    tasks.append(asyncio.ensure_future(heartbeat()))

@app.get("/begin/{what}")
async def begin(what: str):
    asyncio.get_running_loop().ailing = asyncio.ensure_future(grow(globals()[what]))

def connections():
    if next(numbers) % 5 == 0:
        kept.append(socket.create_connection(("127.0.0.1", int(os.environ["UPSTREAM_PORT"]))))

users = Gauge("app_requests", "One series for each user: a label without an end.", ["user"])

def labels():
    for _ in range(1000):
        users.labels(f"user-{next(numbers)}").inc()

def traced():
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    if len(kept) < 400_000:
        kept.extend([number] for number in range(20_000))

# Hears that its client has left, and goes on.
class Deaf(Response):
    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        listening = asyncio.ensure_future(self.listen(receive))
        for _ in range(600):
            await send({"type": "http.response.body", "body": b"data: x\\n\\n", "more_body": True})
            await asyncio.sleep(0.02)
        await listening

    async def listen(self, receive):
        while (await receive())["type"] != "http.disconnect":
            pass

@app.get("/deaf")
async def deaf():
    return Deaf()

@app.get("/burst")
async def burst():
    # Objects of a burst, all freed but one in each of pymalloc's arenas or so: the arenas cannot be given back.
    batch = [bytes([n % 256]) * 400 for n in range(300_000)]
    kept.extend(batch[::2000])
    batch.clear()

@app.get("/chat")
async def chat():
    async def events():
        with ledger.stream("/chat") as stream:
            backlog = asyncio.Queue()
            async def read_upstream():
                for _ in range(160):
                    stream.hold(100_000)
                    backlog.put_nowait(bytes(100_000))
                    await asyncio.sleep(0.01)
            reader = asyncio.ensure_future(read_upstream())
            try:
                while True:
                    yield await backlog.get()
                    stream.release(100_000)
            finally:
                reader.cancel()
    return StreamingResponse(events(), media_type="text/event-stream")

@app.get("/plain")
async def plain():
    async def events():
        while True:
            yield b"data: x\\n\\n"
            await asyncio.sleep(0.05)
    return StreamingResponse(events(), media_type="text/event-stream")
"""


@pytest.fixture
def service(observed: Any, http: Any, eventually: Any) -> Any:
    running = observed(APP, env=FAST)
    eventually(lambda: verdict_on(http, running)["verdict"])
    return running


def verdict_on(http: Any, service: Any) -> Any:
    workers = http(f"{service.monitor}/debug/memory/verdict").json()["workers"]
    return workers[0] if workers else {"verdict": None}


def comes(http: Any, eventually: Any, service: Any, word: str, confidence: str) -> Any:
    def look() -> Any:
        found = verdict_on(http, service)
        return found if (found["verdict"], found["confidence"]) == (word, confidence) else None

    try:
        return eventually(look, patience=60)
    except pytest.fail.Exception:
        pytest.fail(f"not {word} but {verdict_on(http, service)}")


def captured(http: Any, eventually: Any, service: Any, **request: Any) -> None:
    begun = http(f"{service.monitor}/debug/memory/captures", "POST", request)
    assert begun.status == 202, begun.body
    url = service.monitor + begun.headers["Location"]
    ended = eventually(lambda: (now := http(url).json())["state"] in ("done", "failed") and now, patience=60)
    assert ended["state"] == "done", ended


def shown(http: Any, eventually: Any, service: Any, word: str, **request: Any) -> Any:
    """The verdict that captures make certain. On a busy machine most of the growth comes while one is taken, or after it: then
    the next one shows more of it."""

    def look() -> Any:
        captured(http, eventually, service, **request)
        found = verdict_on(http, service)
        return found if (found["verdict"], found["confidence"]) == (word, "high") else None

    return eventually(look, patience=150)


@contextlib.contextmanager
def clients(service: Any, path: str, count: int, read: bool) -> Iterator[None]:
    host, port = service.url.removeprefix("http://").split(":")
    over = threading.Event()
    threads: list[threading.Thread] = []

    def drink(client: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed by the test's end
            while not over.is_set() and client.recv(65536):
                pass

    with contextlib.ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            client.recv(100)
            if read:
                threads.append(threading.Thread(target=drink, args=(client,)))
                threads[-1].start()
        yield
        over.set()
    for thread in threads:
        thread.join()


def test_slow_clients_are_buffering_in_the_app(service: Any, http: Any, eventually: Any) -> None:
    with clients(service, "/chat", 3, read=False):
        told = comes(http, eventually, service, "buffering", "high")
    assert told["layer"] == "app"
    assert len(told["streams"]) == 3
    assert told["next"] == f"diagnostics capture {service.monitor} --kind retained"


def test_leaked_objects_are_retained_and_a_census_names_them(service: Any, http: Any, eventually: Any) -> None:
    assert http(f"{service.url}/begin/objects").status == 200
    comes(http, eventually, service, "retained_objects", "medium")
    told = shown(http, eventually, service, "retained_objects", kind="objects", seconds=2)
    assert "Notice" in str(told["evidence"]) or "bytes" in str(told["evidence"])


@pytest.mark.long
def test_of_a_stopped_service_only_that_is_said_and_what_was_said_before(
    service: Any, http: Any, eventually: Any
) -> None:
    assert http(f"{service.url}/begin/objects").status == 200
    before = comes(http, eventually, service, "retained_objects", "medium")
    os.kill(before["pid"], signal.SIGSTOP)
    try:
        told = comes(http, eventually, service, "inconclusive", "low")
        assert not told["alarm"]
        assert re.search(
            r"does not answer since \d\d:\d\d:\d\d UTC \(the process is stopped \(state T\)\)", told["says"]
        )
        assert re.search(
            r"When it last answered: (RSS grows by .*Python's objects with it|Objects of Python's grow by )",
            told["says"],
        )
        time.sleep(2.5)  # a verdict is shared for two seconds: the next one says the same
        assert verdict_on(http, service)["verdict"] == "inconclusive"
    finally:
        os.kill(before["pid"], signal.SIGCONT)
    eventually(lambda: verdict_on(http, service)["verdict"] == "retained_objects", patience=60)


def test_tasks_that_nobody_awaits_are_orphans(service: Any, http: Any, eventually: Any) -> None:
    assert http(f"{service.url}/begin/orphans").status == 200
    comes(http, eventually, service, "orphan_tasks", "medium")
    assert "heartbeat" in shown(http, eventually, service, "orphan_tasks", kind="tasks")["says"]


def test_streams_that_go_on_without_their_clients_have_unclosed_upstreams(
    service: Any, http: Any, eventually: Any
) -> None:
    with clients(service, "/deaf", 3, read=False):
        pass
    told = comes(http, eventually, service, "unclosed_upstreams", "high")
    assert len(told["streams"]) == 3
    assert "their clients left" in told["says"]


def test_connections_to_others_that_grow_are_unclosed_upstreams(observed: Any, http: Any, eventually: Any) -> None:
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as upstream, contextlib.ExitStack() as stack:

        def accept() -> None:
            with contextlib.suppress(OSError):  # the upstream is closed
                while True:
                    accepted.append(stack.enter_context(upstream.accept()[0]))

        accepting = threading.Thread(target=accept)
        accepting.start()
        service = observed(APP, env={**FAST, "UPSTREAM_PORT": str(upstream.getsockname()[1])})
        eventually(lambda: verdict_on(http, service)["verdict"])
        assert http(f"{service.url}/begin/connections").status == 200
        told = comes(http, eventually, service, "unclosed_upstreams", "medium")
        upstream.shutdown(socket.SHUT_RDWR)
        accepting.join()
    assert told["says"].startswith("Connections to others grow by ")


def test_the_tables_of_a_tracer_that_was_left_on_are_told(service: Any, http: Any, eventually: Any) -> None:
    assert http(f"{service.url}/begin/traced").status == 200
    told = comes(http, eventually, service, "tracer_growth", "high")
    (tables,) = (one["value"] for one in told["evidence"] if one["what"] == "part tracers")
    assert tables > 8 * 1024**2
    assert "The tables of a tracer hold" in told["says"]


def test_a_label_without_an_end_is_growth_of_telemetry(service: Any, http: Any, eventually: Any) -> None:
    assert http(f"{service.url}/begin/labels").status == 200
    captured(http, eventually, service, kind="tracemalloc", seconds=6, frames=1, force=True, max_lag_ms=10000)
    # While the window's own tables are there, they are what is told.
    eventually(lambda: str(verdict_on(http, service)["says"]).startswith("Telemetry holds "), patience=60)
    assert verdict_on(http, service)["verdict"] == "tracer_growth"


def test_what_a_library_mallocs_is_native(service: Any, http: Any, eventually: Any) -> None:
    assert http(f"{service.url}/begin/native").status == 200
    told = comes(http, eventually, service, "native_growth", "medium")
    assert told["next"].endswith("--kind memray --seconds 10 --native")


def test_what_a_burst_left_free_and_scattered_is_kept_by_the_allocator(
    service: Any, http: Any, eventually: Any
) -> None:
    assert http(f"{service.url}/burst").status == 200
    told = comes(http, eventually, service, "allocator_free", "high")
    (free,) = (one["value"] for one in told["evidence"] if one["what"] == "part python_free")
    assert free > 64 * 1024**2


def test_plain_load_gives_no_alarm(service: Any, http: Any, eventually: Any) -> None:
    accused: list[Any] = []

    def settled() -> Any:
        """A service that has just started may still grow by more than matters: that is told, and nobody is accused of it."""
        found = verdict_on(http, service)
        if found["alarm"] and found["confidence"] != "low":
            accused.append(found)
        return not found["alarm"] and "too few" not in found["says"] and found

    with clients(service, "/plain", 20, read=True):
        told = eventually(settled, patience=200)
    assert told["verdict"] in ("load_only", "inconclusive")
    assert accused == []
