"""The growing line of a worker that is replaced again and again: no life of it is long enough to tell, all together are."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diagnostics.agent.heap import extension, layout

APP = """
kept, cache = [], {}

def remember():
    kept.append([bytes(10_000) for _ in range(20)])

def cached(key):
    if key not in cache:
        cache[key] = bytes(100_000)
    return cache[key]

def answer(path):
    if path == "/leak":
        remember()
    return bytes(50_000) + cached(len(cache) if len(cache) < 20 else 7)

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan here")
    body = answer(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body[:10]})
"""
LEAKS = "asgi.py:5"
# Twenty readings a second, so that a life of seconds has as many as one of minutes else; and no captures.
FAST = {
    "DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.05",
    "DIAGNOSTICS_RECORD_SECONDS": "60",
    "DIAGNOSTICS_LOOKS_PER_HOUR": "0",
    "DIAGNOSTICS_HEAP": "on",
    "DIAGNOSTICS_HEAP_RATE": "65536",
}


# A life is asked for until so many seconds of it were judged, and then for the rest of its requests at once: how many looks at
# its heap fit into a time depends on the machine.
JUDGED_SECONDS = 4.0


class Recycled:
    """gunicorn with one worker that is replaced after 1,500 requests, and what the monitor says of it."""

    def __init__(self, launch: Any, http: Any, port: int, folder: Path) -> None:
        if layout.why_not() is not None or extension() is None:
            pytest.skip(layout.why_not() or "the extension of the live heap is not built")
        (folder / "asgi.py").write_text(APP, encoding="utf-8")
        service = launch(
            sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--",
            sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1", "--max-requests", "1500",
            "-k", "uvicorn_worker.UvicornWorker", "asgi:app",
            env={"DIAGNOSTICS_DIR": str(folder / "dir"), **FAST}, cwd=folder,
        )  # fmt: skip
        self.monitor = service.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
        self._http, self._url = http, f"http://127.0.0.1:{port}"
        self.pids: list[int] = []

    def serve(self, path: str, lives: int, look: Callable[[dict[str, Any]], bool]) -> None:
        """Ask for that path until so many lives were seen, or `look` at the worker is content."""
        deadline = time.monotonic() + 800
        before = judged = 0.0
        while time.monotonic() < deadline:
            for _ in range(10):
                self._ask(path)
                time.sleep(0.05)
            for worker in self._http(f"{self.monitor}/debug/memory").json()["workers"]:
                if worker["pid"] not in self.pids:
                    self.pids.append(worker["pid"])
                    before = judged
                if look(worker) or len(self.pids) > lives:
                    return
                judged = max(judged, worker["lines"]["seconds"] or 0.0) if worker["lines"]["rows"] else judged
            if judged - before >= JUDGED_SECONDS:
                before = math.inf  # this life is at its end
                while self._ask("/"):
                    pass
        raise AssertionError(f"only {len(self.pids)} lives in that time")

    def _ask(self, path: str) -> bool:
        """Whether there was an answer: between two lives nobody listens."""
        try:
            self._http(f"{self._url}{path}")
        except OSError:
            return False
        return True


@pytest.fixture
def recycled(launch: Any, http: Any, free_port: Any, tmp_path: Path) -> Recycled:
    return Recycled(launch, http, free_port(), tmp_path)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_line_that_leaks_is_named_over_the_lives_of_a_recycled_worker(recycled: Recycled) -> None:
    """Each life gains 40 MB and ends."""
    named: list[dict[str, Any]] = []

    def look(worker: dict[str, Any]) -> bool:
        line = worker["verdict"].get("line")
        # Both are of the same moment here: a worker that is asked nothing lives on, and is recycled no more.
        if line is None or line["lives"] < 2 or worker["lines"]["lives"] < 2:
            return False
        named.append(worker)
        return True

    recycled.serve("/leak", 40, look)
    assert named, f"not named in {len(recycled.pids)} lives"
    verdict = named[0]["verdict"]
    line = verdict["line"]
    assert line["name"].endswith(f"({LEAKS})")
    assert line["grows"]
    assert 0 < line["grown_bytes"]["low"] < line["grown_bytes"]["high"]
    assert f"({LEAKS}) gained" in verdict["says"]
    assert "processes, one after the other" in verdict["says"]
    # Without an answer of the agent's it is told, and nobody is accused.
    assert verdict["culprit"] in (None, line["name"])
    assert line["name"] in [row["name"] for row in named[0]["lines"]["rows"]]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_recycled_worker_whose_cache_fills_in_each_life_has_no_line_accused(recycled: Recycled) -> None:
    accused: list[Any] = []
    told: list[int] = []

    def look(worker: dict[str, Any]) -> bool:
        told.append(worker["lines"]["lives"])
        rows = [row for row in worker["lines"]["rows"] if row["grows"] and row["lives"] > 1]
        accused.extend([worker["verdict"]["line"]] if worker["verdict"].get("line") else rows)
        return told[-1] >= 4

    recycled.serve("/", 12, look)
    assert accused == []
    assert max(told) >= 3
