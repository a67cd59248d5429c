"""The growing line of a real service, that leaked before anybody looked: named without a capture, and after it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diagnostics.agent.heap import extension, layout

APP = """
import threading, time

cache = {}

def remember(key):
    cache[key] = {"id": key, "body": bytes(9_000)}

def collect():
    while True:
        for _ in range(2):
            remember(len(cache))
        time.sleep(0.01)

threading.Thread(target=collect, daemon=True).start()

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})
"""
# Twenty readings a second, so that a minute's worth of them takes three seconds; and none of the monitor's own captures.
FAST = {
    "DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.05",
    "DIAGNOSTICS_RECORD_SECONDS": "60",
    "DIAGNOSTICS_LOOKS_PER_HOUR": "0",
}
NAME = "remember (service.py:7)"


def shown(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "diagnostics", *words], check=False, capture_output=True, text=True, timeout=120,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    return done.stdout


def test_status_names_the_line_without_a_capture_and_the_black_box_after_a_kill(
    observed: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    """What takes its time: 110 readings, before which nobody is accused."""
    if layout.why_not() is not None or extension() is None:
        pytest.skip(layout.why_not() or "the extension of the live heap is not built")
    service = observed(APP, env={**FAST, "DIAGNOSTICS_HEAP": "on", "DIAGNOSTICS_HEAP_RATE": "65536"})

    def named() -> Any:
        workers = http(f"{service.monitor}/debug/memory").json()["workers"]
        verdict = workers[0]["verdict"] if workers else {}
        # Which verdict it is depends on how often the agent comes to answer; the line does not.
        return workers[0] if verdict.get("line") else None

    worker = eventually(named, patience=90)
    line = worker["verdict"]["line"]
    assert (line["name"], line["grows"]) == (NAME, True)
    assert 0 < line["grown_bytes"]["low"] < line["grown_bytes"]["high"]
    assert f"{NAME} holds" in worker["verdict"]["says"]
    assert worker["verdict"]["culprit"] in (None, NAME)
    rows = worker["lines"]["rows"]
    # Looked at a moment before or after the verdict; the keys are made in the line that calls.
    assert [row["name"] for row in rows if row["grows"]][:1] in ([NAME], [])
    assert not any("diagnostics/agent" in row["file"] for row in rows)
    assert http(f"{service.monitor}/debug/memory").json()["captures"] == []

    assert eventually(
        lambda: NAME in (text := shown("status", service.monitor)) and "lines that grow" in text, patience=60
    )
    os.kill(worker["pid"], signal.SIGKILL)
    service.supervisor.process.wait(timeout=60)
    (ring,) = (tmp_path / "dir" / "blackbox").glob("*.ring")
    text = shown("blackbox", str(ring))
    assert "It was ended by SIGKILL" in text
    assert "Lines that grew, from" in text
    assert NAME in text.partition("Lines that grew, from")[2].splitlines()[1]


def test_without_a_live_heap_it_is_said_that_there_is_none(observed: Any, http: Any, eventually: Any) -> None:
    service = observed(APP, env=FAST)
    lines = eventually(
        lambda: (
            (workers := http(f"{service.monitor}/debug/memory").json()["workers"])
            and workers[0]["state"] == "answering"
            and workers[0]["lines"]
        )
    )
    assert (lines["rows"], lines["unknown"]) == ([], "it keeps no live heap: start it with DIAGNOSTICS_HEAP=on")
    assert "lines" not in shown("status", service.monitor)
