"""Verdicts on live services under `diagnostics run`, each blown up in one way, and one that is only busy."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

# Readings come twenty times as fast as they do in earnest: a trend takes 36 of them after the warm-up.
FAST = {"DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.05", "DIAGNOSTICS_RECORD_SECONDS": "60"}

APP = """
import asyncio, ctypes
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from diagnostics import instrument

app = FastAPI()
ledger = instrument(app)
kept, tasks = [], []
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
    ended = eventually(lambda: (now := http(url).json())["state"] in ("done", "failed") and now, patience=40)
    assert ended["state"] == "done", ended


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
            client = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
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
    captured(http, eventually, service, kind="objects", seconds=2)
    told = comes(http, eventually, service, "retained_objects", "high")
    assert "Notice" in str(told["evidence"]) or "bytes" in str(told["evidence"])


def test_tasks_that_nobody_awaits_are_orphans(service: Any, http: Any, eventually: Any) -> None:
    assert http(f"{service.url}/begin/orphans").status == 200
    comes(http, eventually, service, "orphan_tasks", "medium")
    captured(http, eventually, service, kind="tasks")
    assert "heartbeat" in comes(http, eventually, service, "orphan_tasks", "high")["says"]


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
    with clients(service, "/plain", 20, read=True):
        told = comes(http, eventually, service, "load_only", "high")
    assert not told["alarm"]
