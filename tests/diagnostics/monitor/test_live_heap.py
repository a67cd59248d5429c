"""The live heap of a real service: as Go's tools ask for it, while the service is stopped, and after it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diagnostics.agent.heap import extension, layout
from diagnostics.analysis.formats import pprof
from diagnostics.analysis.profile import Profile

APP = """
kept = []

class Early:
    def __call__(self):
        kept.append([b"x" * 1000 + str(number).encode() for number in range(20_000)])

Early()()

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    grow()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"grown"})

def grow():
    kept.append([bytearray(5000) for _ in range(2000)])
"""


def started(
    observed: Any, http: Any, eventually: Any, headers: dict[str, str] | None = None, source: str = APP, **env: str
) -> Any:
    if layout.why_not() is not None or extension() is None:
        pytest.skip(layout.why_not() or "the extension of the live heap is not built")
    found = observed(source, env={"DIAGNOSTICS_HEAP": "on", "DIAGNOSTICS_HEAP_RATE": "16384", **env})

    def answering() -> bool:
        workers = http(f"{found.monitor}/debug/memory", headers=headers or {}).json()["workers"]
        return bool(workers) and workers[0]["state"] == "answering" and workers[0]["heap"] is not None

    eventually(answering)
    return found


@pytest.fixture
def service(observed: Any, http: Any, eventually: Any) -> Any:
    return started(observed, http, eventually)


def held(profile: Profile, function: str, value: int = 0) -> int:
    return sum(each.values[value] for each in profile.samples if any(f.function == function for f in each.stack))


def test_heap_is_what_is_alive_allocated_whenever(service: Any, http: Any) -> None:
    worker = http(f"{service.monitor}/debug/memory").json()["workers"][0]
    assert worker["heap"]["mode"] == "on"
    assert worker["heap"]["reason"] is None
    assert worker["balance"]["parts"]["python_live"] > 0  # pymalloc still tells what it has
    assert worker["balance"]["parts"]["tracers"] > 0
    profile = pprof.decode(http(f"{service.monitor}/debug/pprof/heap").body)
    # Allocated while the service started, before anybody asked. 20 MB at 16 KiB: a deviation of 3 %.
    assert held(profile, "Early.__call__") == pytest.approx(20_000 * 1040, rel=0.2)
    assert profile.kind == "heap"
    assert [kind.name for kind in profile.sample_types] == [
        "inuse_space",
        "inuse_objects",
        "alloc_space",
        "alloc_objects",
    ]
    allocs = pprof.decode(http(f"{service.monitor}/debug/pprof/allocs").body)
    assert allocs.sample_types[0].name == "alloc_space"
    text = http(f"{service.monitor}/debug/pprof/heap?debug=1").body
    assert b"heap profile: heap" in text
    assert b"age=" in text


def test_seconds_is_what_changed_in_that_time(service: Any, http: Any) -> None:
    import threading

    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(http(f"{service.monitor}/debug/pprof/heap?seconds=4")))
    asking.start()
    while asking.is_alive():  # whenever its first look is, more comes after it
        http(f"{service.url}/")
        asking.join(0.2)
    profile = pprof.decode(answers[0].body)
    assert held(profile, "grow") > 10_000_000
    assert held(profile, "Early.__call__") == 0
    assert profile.duration >= 4


@pytest.mark.needs("go", "golang-go")
def test_go_tool_pprof_shows_live_memory_by_qualified_names_and_gives_the_token_as_a_password(
    observed: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    token = {"authorization": "Bearer token-of-this-test"}
    service = started(observed, http, eventually, token, DIAGNOSTICS_TOKEN="token-of-this-test")
    host = service.monitor.removeprefix("http://")

    def pprof_of(login: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["go", "tool", "pprof", "-top", f"http://{login}@{host}/debug/pprof/heap"],
            check=False, capture_output=True, encoding="utf-8", timeout=250,
            env={**os.environ, "PPROF_TMPDIR": str(tmp_path), "HOME": str(tmp_path), "no_proxy": "*", "CGO_ENABLED": "0"},
        )  # fmt: skip

    done = pprof_of("user:token-of-this-test")
    assert done.returncode == 0, done.stderr
    assert "Type: inuse_space" in done.stdout
    assert "Early.__call__" in done.stdout
    refused = pprof_of("user:token-of-another")
    assert refused.returncode != 0
    assert "401" in refused.stderr


def test_it_is_read_while_the_service_is_stopped_and_after_it_was_killed(
    service: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    http(f"{service.url}/")
    # The recorder looks once a second: a service that is killed before that has no black box.
    eventually(lambda: list((tmp_path / "dir" / "blackbox").glob("*.ring")))
    pid = http(f"{service.monitor}/debug/memory").json()["workers"][0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        profile = pprof.decode(http(f"{service.monitor}/debug/pprof/heap").body)
        assert held(profile, "grow") > 8_000_000
    finally:
        os.kill(pid, signal.SIGKILL)
    service.supervisor.process.wait(timeout=60)
    (recording,) = (tmp_path / "dir" / "blackbox").glob("*.ring")
    shown = subprocess.run(
        [sys.executable, "-m", "diagnostics", "blackbox", recording],
        check=True, capture_output=True, encoding="utf-8", timeout=120,
    ).stdout  # fmt: skip
    assert "It was ended by SIGKILL" in shown
    assert "What was alive at " in shown
    # Each line with its interval.
    line = next(line for line in shown.splitlines() if " grow" in line)
    assert " to " in line
    path = shown.partition("more: diagnostics top --lines ")[2].strip()
    rows = subprocess.run(
        [sys.executable, "-m", "diagnostics", "top", path],
        check=True, capture_output=True, encoding="utf-8", timeout=120,
    ).stdout  # fmt: skip
    assert "Early.__call__" in rows
    assert "95 of 100 times within" in rows


STREAMS = """
import asyncio
from diagnostics import instrument

kept = []

def remember():
    kept.append(bytearray(65_000))

async def streaming(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(20):
        remember()
        await send({"type": "http.response.body", "body": b"data: x\\n\\n", "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})

app = instrument(streaming, routes=["/chat", "/feed"])
"""


def test_what_streams_hold_is_told_by_their_route(observed: Any, http: Any, eventually: Any) -> None:
    service = started(observed, http, eventually, source=STREAMS, DIAGNOSTICS_HEAP_RATE="4096")
    for _ in range(2):
        http(f"{service.url}/chat")
    http(f"{service.url}/feed")
    profile = pprof.decode(http(f"{service.monitor}/debug/pprof/heap").body)
    found: dict[str | None, int] = {}
    for sample in profile.samples:
        if sample.values[1] and sample.stack and sample.stack[0].function == "remember":
            route = dict(sample.labels).get("route")
            found[route] = found.get(route, 0) + sample.values[0]
    assert found == {"/chat": pytest.approx(40 * 65_000, rel=0.1), "/feed": pytest.approx(20 * 65_000, rel=0.1)}
    assert http(f"{service.monitor}/debug/memory").json()["workers"][0]["heap"]["no_route"] is None
