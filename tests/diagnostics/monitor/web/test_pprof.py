"""/debug/pprof as its clients use it: `go tool pprof`, scrapers, curl."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diagnostics.analysis.formats import pprof
from diagnostics.analysis.formats.text import render_lines, render_stacks
from diagnostics.analysis.profile import Frame, Profile, Sample, ValueType
from diagnostics.monitor.web.session import COOKIE, issue

APP = """
import asyncio
from contextlib import asynccontextmanager
from fastapi import FastAPI

kept = []

@asynccontextmanager
async def lifespan(app):
    task = asyncio.create_task(fill())
    yield
    task.cancel()

async def fill():
    while True:
        kept.append(bytearray(4000))
        await asyncio.sleep(0.005)

app = FastAPI(lifespan=lifespan)
"""
WITHOUT_MEMRAY = "import sys; sys.modules['memray'] = None\n" + APP


@pytest.fixture
def start(observed: Any, http: Any, eventually: Any) -> Callable[..., str]:
    def run(source: str = APP, *, token: str = "", **environment: str) -> str:
        monitor: str = observed(source, env=environment).monitor
        headers = {"Authorization": f"Bearer {token}"} if token else {}

        def answering() -> bool:
            workers = http(f"{monitor}/debug/memory", headers=headers).json()["workers"]
            return bool(workers) and workers[0]["state"] == "answering"

        eventually(answering)
        return monitor

    return run


def window(http: Any, monitor: str) -> Any:
    return http(f"{monitor}/debug/memory").json()["workers"][0]["window"]


@pytest.mark.needs("go", "golang-go")
@pytest.mark.parametrize("source", [APP, WITHOUT_MEMRAY], ids=["memray", "tracemalloc"])
def test_go_tool_pprof_reads_heap_and_allocs_from_their_addresses(
    start: Callable[..., str], http: Any, tmp_path: Path, source: str
) -> None:
    monitor = start(source)

    def top(profile: str) -> str:
        done = subprocess.run(
            ["go", "tool", "pprof", "-top", "-lines", f"{monitor}/debug/pprof/{profile}&force=1"],
            check=False, capture_output=True, encoding="utf-8", timeout=250,
            env={**os.environ, "PPROF_TMPDIR": str(tmp_path), "HOME": str(tmp_path), "no_proxy": "*", "CGO_ENABLED": "0"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    # A scraper asks for both at once: they take turns.
    answers: dict[str, str] = {}
    asking = [
        threading.Thread(target=lambda name=name: answers.update({name: top(f"{name}?seconds=0.7")}))
        for name in ("heap", "allocs")
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    for name in ("heap", "allocs"):
        rows = [line for line in answers[name].splitlines() if "service.py" in line]
        assert rows, answers[name]
        line = 1 + source.splitlines().index("        kept.append(bytearray(4000))")
        assert f"service.py:{line}" in rows[0]
    assert "Duration: " in answers["heap"]
    assert ("alloc_space" if source is APP else "inuse_space") in answers["allocs"]


def test_a_scraper_in_a_hurry_gets_the_last_window_with_its_true_time(start: Callable[..., str], http: Any) -> None:
    monitor = start()
    first = http(f"{monitor}/debug/pprof/heap?seconds=0.3&gc=1&force=1")
    again = http(f"{monitor}/debug/pprof/heap?seconds=0.3")
    assert first.body == again.body
    assert first.headers["Content-Type"] == "application/octet-stream"
    assert first.headers["Content-Disposition"] == 'attachment; filename="heap"'
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    profile = pprof.decode(first.body)
    assert 0.2 < profile.duration < 5
    assert any("before the window" in note for note in profile.not_covered)
    short, whole = (http(f"{monitor}/debug/pprof/heap?debug={debug}") for debug in (1, 2))
    for text in (short, whole):
        assert text.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert text.body.startswith(b"heap profile: memray")
        assert f"service.py:{1 + APP.splitlines().index('        kept.append(bytearray(4000))')}".encode() in text.body
    assert http(f"{monitor}/debug/memory/captures").json() == {"captures": []}  # it crowds out nobody's captures
    index = http(f"{monitor}/debug/pprof/")
    assert all(f'href="{name}?debug=1"'.encode() in index.body for name in ("heap", "allocs", "goroutine"))
    assert index.headers["Content-Type"].startswith("text/html")


def test_a_window_ends_when_the_last_asker_has_left(start: Callable[..., str], http: Any, eventually: Any) -> None:
    monitor = start(DIAGNOSTICS_PPROF_INTERVAL_SECONDS="0")
    host, port = monitor.removeprefix("http://").split(":")
    askers = [socket.create_connection((host, int(port))) for _ in range(2)]
    for asker in askers:
        asker.sendall(b"GET /debug/pprof/heap?seconds=60&force=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    eventually(lambda: window(http, monitor) == "memray")
    askers[0].close()
    assert window(http, monitor) == "memray"
    askers[1].close()
    eventually(lambda: window(http, monitor) is None, patience=30)
    assert http(f"{monitor}/debug/pprof/heap?seconds=0.2&force=1").status == 200


def test_a_get_begins_a_window_for_who_may_capture_and_for_nobody_else(
    start: Callable[..., str], http: Any, tmp_path: Path
) -> None:
    monitor = start(
        DIAGNOSTICS_TOKEN="all", DIAGNOSTICS_READ_TOKEN="some", DIAGNOSTICS_PPROF_INTERVAL_SECONDS="0", token="all"
    )
    everything, reading = {"Authorization": "Bearer all"}, {"Authorization": "Bearer some"}
    for name in ("heap", "allocs", "goroutine"):
        refused = http(f"{monitor}/debug/pprof/{name}?seconds=0.3&force=1", headers=reading)
        assert refused.status == 403
        assert refused.headers["X-Go-Pprof"] == "1"
        assert b"DIAGNOSTICS_TOKEN" in refused.body
    cookie = {"Cookie": f"{COOKIE}={issue('all', time.time())}", "User-Agent": "Mozilla/5.0"}
    assert http(f"{monitor}/debug/memory", headers=cookie).status == 200
    assert http(f"{monitor}/debug/pprof/heap?seconds=0.3&force=1", headers=cookie).status == 403
    image = {**cookie, "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    assert http(f"{monitor}/debug/pprof/heap?seconds=0.3&force=1", headers=image).status == 403
    metrics = http(f"{monitor}/metrics", headers=reading).body.decode()
    assert "diagnostics_captures_total{" not in metrics
    first = http(f"{monitor}/debug/pprof/heap?seconds=0.3&force=1", headers=everything)
    last = http(f"{monitor}/debug/pprof/heap?seconds=0.3&force=1", headers=reading)
    assert first.status == last.status == 200
    assert first.body == last.body
    own = http(f"{monitor}/debug/pprof/heap?seconds=0.3&force=1", headers={**cookie, "Sec-Fetch-Site": "same-origin"})
    assert own.status == 200
    assert own.body != first.body
    audited = [json.loads(line) for line in (tmp_path / "dir" / "audit.log").read_text(encoding="utf-8").splitlines()]
    assert [line["who"] for line in audited if line["event"] == "window"] == ["DIAGNOSTICS_TOKEN"] * 2


@pytest.mark.needs("go", "golang-go")
def test_go_tool_pprof_shows_its_token_in_the_address(start: Callable[..., str], http: Any, tmp_path: Path) -> None:
    monitor = start(DIAGNOSTICS_TOKEN="all", token="all")
    done = subprocess.run(
        ["go", "tool", "pprof", "-top", f"{monitor.replace('http://', 'http://all@')}/debug/pprof/heap?seconds=1&force=1"],
        check=False, capture_output=True, encoding="utf-8", timeout=250,
        env={**os.environ, "PPROF_TMPDIR": str(tmp_path), "HOME": str(tmp_path), "no_proxy": "*", "CGO_ENABLED": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fill" in done.stdout


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("nope", 404, "unknown profile 'nope'"),
        ("heap?seconds=-1", 422, "seconds is '-1'"),
        ("heap?seconds=nan", 422, "seconds is 'nan'"),
        ("heap?seconds=1e9", 422, "at most 300"),
        ("heap?debug=3", 422, "debug is '3'"),
        ("heap?gc=x", 422, "gc is 'x'"),
        ("heap?worker=9", 404, "no worker '9'"),
    ],
)
def test_an_error_is_text_that_go_tool_pprof_shows(
    one_monitor: str, http: Any, path: str, status: int, says: str
) -> None:
    answer = http(f"{one_monitor}/debug/pprof/{path}")
    assert answer.status == status
    assert says in answer.body.decode()
    assert answer.headers["X-Go-Pprof"] == "1"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.fixture(scope="module")
def one_monitor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A monitor with a process to watch that has no agent, for requests that never reach one."""
    import sys

    root = Path(__file__).parents[4]
    log = tmp_path_factory.mktemp("pprof") / "log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0", "--dir", str(log.parent / "dir")],
            stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
    try:
        while "/debug/memory" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, log.read_text(encoding="utf-8")
        yield log.read_text(encoding="utf-8").split()[1].removesuffix("/debug/memory")
    finally:
        process.terminate()
        process.wait(60)


TASKS = Profile(
    kind="tasks",
    sample_types=(ValueType("tasks", "count"),),
    samples=(
        Sample((Frame("wait", "/srv/app.py", 3), Frame("serve", "/srv/app.py", 9)), (2,), (("state", "waiting"),)),
        Sample((Frame("main", "/srv/app.py", 1),), (1,)),
        Sample((), (5,)),
    ),
    time=1.79e9,
    duration=0.0,
    not_covered=("tasks of other processes",),
)


def test_stacks_as_text_are_sorted_and_say_what_is_not_covered() -> None:
    lines = render_lines("goroutine", TASKS).splitlines()
    assert lines[0].startswith("goroutine profile: tasks, ended 2026-")
    assert lines[1:4] == [
        "5  @ (no stack)",
        "2  @ wait /srv/app.py:3 < serve /srv/app.py:9 state=waiting",
        "1  @ main /srv/app.py:1",
    ]
    assert lines[-1] == "not covered: tasks of other processes"
    blocks = render_stacks("goroutine", TASKS)
    assert "goroutine 2 [2]: state=waiting\n    wait /srv/app.py:3\n    serve /srv/app.py:9\n" in blocks


@pytest.mark.needs("go", "golang-go")
def test_goroutine_is_tasks_and_threads(start: Callable[..., str], http: Any, tmp_path: Path) -> None:
    monitor = start()
    done = subprocess.run(
        ["go", "tool", "pprof", "-top", f"{monitor}/debug/pprof/goroutine"],
        check=False, capture_output=True, encoding="utf-8", timeout=250,
        env={**os.environ, "PPROF_TMPDIR": str(tmp_path), "HOME": str(tmp_path), "no_proxy": "*", "CGO_ENABLED": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fill" in done.stdout
    text = http(f"{monitor}/debug/pprof/goroutine?debug=2").body.decode()
    assert "service.py" in text
    assert "thread=MainThread" in text
