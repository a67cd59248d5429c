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

sys.path.insert(0, str(Path(__file__).parents[4]))

from tests.chromium import Browser  # found once the path is set

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
        [sys.executable, "-m", "diagnostics", *words], check=False, capture_output=True, encoding="utf-8", timeout=120,
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
        lambda: NAME in (text := shown("status", service.monitor)) and "lines that grow, within" in text, patience=60
    )
    os.kill(worker["pid"], signal.SIGKILL)
    service.supervisor.process.wait(timeout=60)
    (ring,) = (tmp_path / "dir" / "blackbox").glob("*.ring")
    text = shown("blackbox", str(ring))
    assert "It was ended by SIGKILL" in text
    assert "Lines that grew, from" in text
    assert NAME in text.partition("Lines that grew, from")[2].splitlines()[1]


@pytest.mark.e2e
@pytest.mark.needs("chromium", "chromium")
def test_the_page_shows_what_each_line_gained_since_a_chosen_moment(
    observed: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    if layout.why_not() is not None or extension() is None:
        pytest.skip(layout.why_not() or "the extension of the live heap is not built")
    service = observed(APP, env={**FAST, "DIAGNOSTICS_HEAP": "on", "DIAGNOSTICS_HEAP_RATE": "65536"})
    lines = f"{service.monitor}/debug/memory/lines"

    def rows() -> Any:
        answer = http(f"{lines}?seconds=600&limit=2")
        return answer.status == 200 and answer.json()["rows"]

    known = eventually(rows, patience=60)
    assert len(known) == 2
    assert known[0]["name"] == NAME
    for query in ("seconds=0", "seconds=soon", "seconds=inf", "seconds=nan", "limit=-1"):
        assert http(f"{lines}?{query}").status == 422
    assert http(f"{lines}?worker=9").status == 404
    with Browser(tmp_path) as browser:
        browser.open(f"{service.monitor}/debug/memory")
        named = f"document.getElementById('heap-lines')?.innerText.includes({NAME!r})"
        browser.until(named)
        browser.evaluate("document.getElementById('heap-lines').replaceChildren()")
        browser.evaluate(
            "(() => { const span = document.getElementById('heap-span'); span.value = '3600';"
            " span.dispatchEvent(new Event('change')); })()"
        )
        browser.until(f"{named} && document.getElementById('heap-since').innerText.startsWith('since')")
        browser.evaluate(
            "(() => { const chart = document.getElementById('chart').getBoundingClientRect();"
            " document.getElementById('heap-lines').replaceChildren();"
            " document.getElementById('chart').dispatchEvent(new MouseEvent('click', {clientX: chart.left + 70})); })()"
        )
        browser.until(f"{named} && state.since > 1e9")


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
    answer = http(f"{service.monitor}/debug/memory/lines").json()
    assert (answer["rows"], answer["unknown"]) == ([], lines["unknown"])
