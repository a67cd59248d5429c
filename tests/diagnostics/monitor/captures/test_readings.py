"""tasks, objects and retained, taken from live services by their monitor."""

from __future__ import annotations

import gzip
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

APP = """
import asyncio, threading
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()
history = []
threading.Thread(target=threading.Event().wait, name="housekeeper-1", daemon=True).start()

class Notice:
    __slots__ = ("text",)

    def __init__(self, text):
        self.text = text

@app.get("/grow")
async def grow():
    history.extend(Notice(bytes(1000)) for _ in range(2000))

async def pieces(queue):
    while True:
        yield await queue.get()

@app.get("/stream/{size}")
async def stream(size: int):
    async def events():
        queue, backlog = asyncio.Queue(), []
        queue.put_nowait(b"data: 1\\n\\n")
        backlog.extend(bytes(1000) for _ in range(size))
        async for piece in pieces(queue):
            yield piece
    return StreamingResponse(events(), media_type="text/event-stream")
"""
INSTRUMENTED = APP + "\nfrom diagnostics import instrument\nledger = instrument(app, monitor=True)\n"


def answering(http: Any, service: Any) -> Any:
    workers = http(f"{service.monitor}/debug/memory").json()["workers"]
    return workers[0] if workers and workers[0]["state"] == "answering" else None


@pytest.fixture
def take(http: Any, eventually: Any) -> Any:
    """(service, request) -> the capture that was taken, with its artifacts' contents under `files`."""

    def call(service: Any, **request: Any) -> Any:
        begun = http(f"{service.monitor}/debug/memory/captures", "POST", request)
        assert begun.status == 202, begun.body
        url = service.monitor + begun.headers["Location"]
        capture = eventually(lambda: (now := http(url).json())["state"] in ("done", "failed") and now, patience=60)
        assert capture["state"] == "done", capture
        names = [artifact["name"] for artifact in capture["artifacts"]]
        bodies = {name: http(f"{url}/artifacts/{name}").body for name in names}
        capture["files"] = {
            name: (gzip.decompress(body) if name.endswith(".gz") else body).decode(errors="replace")
            for name, body in bodies.items()
        }
        return capture

    return call


@contextmanager
def clients(service: Any, *sizes: int, under: str = "") -> Iterator[None]:
    """Streams of these many kilobytes of backlog, open and past their first event."""
    host, port = service.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        for size in sizes:
            client = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            client.sendall(f"GET {under}/stream/{size} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            seen = b""
            while b"data: 1" not in seen:
                seen += client.recv(4096)
        yield


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_bytes_are_charged_to_the_stream_that_holds_them_and_shown_beside_it(
    observed: Any, http: Any, eventually: Any, take: Any, loop: str
) -> None:
    service = observed(INSTRUMENTED, "--loop", loop)
    eventually(lambda: answering(http, service))
    with clients(service, 100, 300, 1000):
        capture = take(service, kind="retained")
        result = capture["result"]
        held = [row["retained_bytes"] for row in result["streams"]]
        for found, planted in zip(held, (1_000_000, 300_000, 100_000), strict=True):
            assert 0.95 * planted <= found <= 1.1 * planted + 40_000
        assert {row["route"] for row in result["streams"]} == {"/stream/{size}"}
        assert result["total_bytes"] == sum(held)
        assert "local 'backlog' -> list[1000]" in result["streams"][0]["containers"][0]["path"]
        assert "local 'backlog' -> list[1000]" in capture["files"]["retained.txt"]
        top = result["top"][0]
        assert (top["function"], Path(top["file"]).name) == ("local 'backlog' -> list", "service.py")
        profile = json.loads(capture["files"]["profile.json"])
        labels = [labels for _stack, _values, labels in profile["samples"]]
        assert {"route": "/stream/{size}", "state": "streaming"} in labels

        for rows in (
            http(f"{service.monitor}/debug/memory/streams").json()["streams"],
            answering(http, service)["ledger"]["top"],
        ):
            shown = {row["id"]: (row["retained_bytes"], row["retained_time"]) for row in rows}
            assert shown == {row["id"]: (row["retained_bytes"], result["time"]) for row in result["streams"]}
        with clients(service, 1):
            streams = f"{service.monitor}/debug/memory/streams"
            rows = eventually(lambda: len(now := http(streams).json()["streams"]) == 4 and now)
            assert [row["retained_time"] for row in rows].count(None) == 1


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_without_a_ledger_the_requests_that_uvicorn_serves_are_the_streams(
    observed: Any, http: Any, eventually: Any, take: Any, loop: str
) -> None:
    service = observed(APP, "--loop", loop)
    eventually(lambda: answering(http, service))
    with clients(service, 100, 300):
        rows = take(service, kind="retained")["result"]["streams"]
        assert [row["state"] for row in rows] == ["streaming", "streaming"]
        assert [row["route"] for row in rows] == ["/stream/{size}"] * 2
        for row, planted in zip(rows, (300_000, 100_000), strict=True):
            assert 0.95 * planted <= row["retained_bytes"] <= 1.1 * planted + 40_000
    eventually(lambda: take(service, kind="retained")["result"]["streams"] == [])


def test_a_mounted_app_has_one_name_everywhere(observed: Any, http: Any, eventually: Any, take: Any) -> None:
    service = observed(APP + 'inner, app = app, FastAPI()\napp.mount("/api", inner)\n')
    eventually(lambda: answering(http, service))
    with clients(service, 10, under="/api"):
        rows = take(service, kind="retained")["result"]["streams"]
        assert [row["route"] for row in rows] == ["/api/stream/{size}"]
        shown = eventually(lambda: http(f"{service.monitor}/debug/memory/streams").json()["streams"])
        assert [row["route"] for row in shown] == ["/api/stream/{size}"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_tasks_show_where_each_stream_waits_and_the_threads(
    observed: Any, http: Any, eventually: Any, take: Any, loop: str
) -> None:
    service = observed(INSTRUMENTED, "--loop", loop)
    eventually(lambda: answering(http, service))
    with clients(service, 1, 1, 1):
        capture = take(service, kind="tasks")
    result = capture["result"]
    assert result["total_count"] >= 4
    assert not result["in_process"]
    groups = json.loads(capture["files"]["tasks.json"])["groups"]
    # Starlette serves each stream by two tasks: one waits for the client to leave, the other one sends.
    by_function = {group["stack"][-1][0]: group for group in groups if group["routes"]}
    serving, sending = by_function.pop("RequestResponseCycle.run_asgi"), by_function.popitem()[1]
    functions = [function for function, _file, _line in sending["stack"]]
    assert functions[:3] == ["Queue.get", "pieces", "stream.<locals>.events"]
    assert sending["awaited_by"] == ["task Task-* in RequestResponseCycle.run_asgi"]
    assert [serving["orphan"], sending["orphan"]] == [True, False]
    for group in (serving, sending):
        assert (group["count"], group["routes"]) == (3, {"/stream/{size}": 3})
        assert group["oldest_seconds"] > 0
    told = [row["awaited_by"] for row in result["top"] if (row["function"], row["count"]) == ("Queue.get", 3)]
    assert told == ["awaited by task Task-* in RequestResponseCycle.run_asgi"]
    text = capture["files"]["tasks.txt"]
    assert "3 tasks 'Task-*' (pending, loop 0, not awaited by any task" in text
    assert "thread 'housekeeper-*'" in text
    assert take(service, kind="tasks", fork=False)["result"]["in_process"]


def test_a_census_shows_what_grows_and_why_it_is_alive(observed: Any, http: Any, eventually: Any, take: Any) -> None:
    service = observed(APP)
    eventually(lambda: answering(http, service))
    http(f"{service.url}/grow")
    now = take(service, kind="objects", seconds=0)
    assert now["result"]["bytes_delta"] is None
    assert now["result"]["total_bytes"] == sum(
        row["bytes"] for row in json.loads(now["files"]["objects.json"])["types"]
    )

    begun = http(f"{service.monitor}/debug/memory/captures", "POST", {"kind": "objects", "seconds": 2})
    url = service.monitor + begun.headers["Location"]
    eventually(lambda: http(url).json()["progress"] > 0)
    http(f"{service.url}/grow")
    capture = eventually(lambda: (found := http(url).json())["state"] in ("done", "failed") and found, patience=60)
    result = capture["result"]
    rows = {row["type"]: row for row in result["top"]}
    assert result["top"][0]["type"] == "bytes"
    # Some of other bytes came and went meanwhile.
    assert 1990 <= rows["bytes"]["count_delta"] < 2500
    assert rows["bytes"]["bytes_delta"] >= 1990 * 1000
    assert rows["service.Notice"]["count_delta"] == 2000
    assert rows["service.Notice"]["count"] == 4000
    (why, *_others) = result["paths"]["bytes"]
    assert why["path"] == "module service -> global 'history' -> list[4000] -> service.Notice.text -> bytes"
    assert why["samples"] >= 10
    text = http(f"{url}/artifacts/objects.txt").body.decode()
    assert "module service -> global 'history'" in text
    profile = http(f"{url}/artifacts/profile.json").json()
    assert sum(values[0] for _stack, values, _labels in profile["samples"]) == result["total_bytes"]


def test_what_a_service_has_frozen_is_counted_and_its_leak_is_named(
    observed: Any, http: Any, eventually: Any, take: Any
) -> None:
    # As docs/verdict.md advises to do before a fork: frozen objects are in no list of the collector.
    preloaded = """
import gc
class Loaded:
    pass
history.append([Loaded() for _ in range(30000)])
gc.freeze()
"""
    service = observed(APP + preloaded)
    eventually(lambda: answering(http, service))
    http(f"{service.url}/grow")
    census = take(service, kind="objects", seconds=0)
    types = {row["type"]: row for row in json.loads(census["files"]["objects.json"])["types"]}
    assert types["service.Loaded"]["count"] >= 30_000
    assert types["service.Notice"]["count"] >= 2_000


@pytest.mark.parametrize("kind", ["tasks", "objects", "retained"])
def test_the_capture_command_shows_each_kind_with_its_own_columns(
    observed: Any, http: Any, eventually: Any, launch: Any, tmp_path: Path, kind: str
) -> None:
    service = observed(INSTRUMENTED)
    eventually(lambda: answering(http, service))
    with clients(service, 200):
        command = launch(
            sys.executable, "-m", "diagnostics", "capture", service.monitor, "--kind", kind, "--seconds", "0",
            "-o", tmp_path / "out", env={"COLUMNS": "200"},
        )  # fmt: skip
        assert command.process.wait(60) == 0, command.output
    assert {"tasks": "not awaited", "objects": "why ", "retained": "'backlog'"}[kind] in command.output
    (profile,) = (tmp_path / "out").glob("*/profile.json")
    shown = launch(sys.executable, "-m", "diagnostics", "top", profile)
    assert shown.process.wait(60) == 0, shown.output


def test_no_data_of_the_service_is_in_any_artifact(observed: Any, http: Any, eventually: Any, take: Any) -> None:
    secret = "Tell-me-a-secret"
    service = observed(
        INSTRUMENTED
        + f"""
@app.get("/prompted")
async def prompted():
    async def events():
        prompt = {{"content of {secret}": ["{secret}"] * 3}}
        filled = [prompt["content of {secret}"] + [bytes(5000)] for _ in range(50)]
        yield b"data: 1\\n\\n"
        await asyncio.sleep(60)
        del filled
    return StreamingResponse(events(), media_type="text/event-stream")
"""
    )
    eventually(lambda: answering(http, service))
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(
            f"GET /prompted?prompt={secret} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {secret}\r\n\r\n".encode()
        )
        assert client.recv(4096)
        for kind in ("tasks", "objects", "retained"):
            capture = take(service, kind=kind, seconds=0)
            assert secret not in json.dumps(capture)
            if kind == "retained":
                assert "'filled'" in capture["files"]["retained.txt"]


def test_tasks_and_objects_have_routes_of_their_own(observed: Any, http: Any, eventually: Any, take: Any) -> None:
    service = observed(APP)
    eventually(lambda: answering(http, service))
    url = f"{service.monitor}/debug/memory"
    (now,) = http(f"{url}/tasks").json()["workers"]
    assert now["tasks"] >= 1
    assert now["task_states"]["pending"] >= 1
    assert now["captured"] is None  # a GET starts no capture
    for kind, shown in (("tasks", "Server.serve"), ("objects", "dict")):
        taken = take(service, kind=kind, seconds=0)
        (told,) = http(f"{url}/{kind}?worker=0").json()["workers"]
        assert told["captured"]["id"] == taken["id"]
        assert told["captured"]["age_seconds"] < 60
        assert told["captured"]["total_count"] > 0
        assert shown in json.dumps(told["captured"]["top"])
    assert told["python_blocks"] > 10_000
    assert http(f"{url}/objects?worker=7").status == 404
