"""`diagnostics status` and `diagnostics rules` against a live monitor: what they print, and their exit codes."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from diagnostics.commands.status import shown

APP = """
from fastapi import FastAPI
from diagnostics import instrument

app = FastAPI()
ledger = instrument(app)
ledger.open("/chat").hold(64 * 1024 * 1024)
"""
RULES = """
[[rule]]
name = "buffers"
trigger = "buffered_bytes"
above = {above}
for = 0
"""


def told(*words: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "diagnostics", *words],
        check=False, capture_output=True, encoding="utf-8", timeout=250,
        env={**_environment(), "COLUMNS": "160", **environment},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DIAGNOSTICS_")}


def watched(url: str, look: Callable[[str], bool], **environment: str) -> tuple[int, str]:
    """`status --watch` in a terminal of its own, until `look` is content with what is on it; then Ctrl-C."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 160, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "diagnostics", "status", url, "--watch"],
        stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True, start_new_session=True,
        env={**_environment(), "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    os.close(theirs)
    seen, interrupted, deadline = b"", False, time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    seen += os.read(ours, 65536)
                except OSError:  # the other end is closed: it has ended
                    break
            if not interrupted and look(seen.decode(errors="replace")):
                process.send_signal(signal.SIGINT)
                interrupted = True
        return process.wait(60), seen.decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.fixture
def service(observed: Any, http: Any, eventually: Any) -> Any:
    running = observed(APP, env={"DIAGNOSTICS_READ_TOKEN": "look"})
    asked = {"Authorization": "Bearer look"}
    eventually(
        lambda: any(
            worker["state"] == "answering"
            for worker in http(f"{running.monitor}/debug/memory", headers=asked).json()["workers"]
        )
    )
    return running


def test_status_shows_verdict_balance_and_streams_and_says_no_on_an_alarm(service: Any) -> None:
    for locale in ({}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):  # the other one is ASCII
        code, text = told("status", service.monitor, DIAGNOSTICS_READ_TOKEN="look", **locale)
        assert code == 1, text
        for word in ("Streams are buffered", "64.00 MiB", "python_live", "/chat", "diagnostics capture http://"):
            assert word in text
    code, text = told("status", service.monitor)
    assert (code, "a token is needed" in text) == (2, True)


def test_what_else_was_found_is_printed_and_the_end_of_a_former_life_comes_first(service: Any, http: Any) -> None:
    """The right finding stood in `also`, which was never printed; a death was told nowhere."""
    answer = http(
        f"{service.monitor}/debug/memory", headers={"Authorization": "Bearer look", "Accept": "application/json"}
    )
    overview = answer.json()
    other = {
        "title": "Upstreams stay open",
        "confidence": "medium",
        "says": "Connections grow by 90.",
        "next": "look there",
    }
    overview["workers"][0]["verdict"]["also"] = [other]
    overview["ends"] = [
        {
            "time": 1_790_000_000.0, "worker": "0", "pid": 12, "said": "It was ended by SIGKILL: out of memory.",
            "verdict": "Objects grow.", "file": "/var/lib/black/0.ring", "oom": True,
            "lines": [
                {
                    "name": "f (a.py:1)", "in": None, "seconds": 60.4,
                    "grown_bytes": {"low": 1024.0**2, "mid": 2 * 1024.0**2, "high": 4 * 1024.0**2},
                }
            ],
        }
    ]  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=160).print(shown(overview))
    text = out.getvalue()
    assert "also: Upstreams stay open (medium confidence)  Connections grow by 90." in text
    assert "next: look there" in text
    told = [
        "ended by SIGKILL: out of memory",
        "last verdict: Objects grow.",
        "live heap: f (a.py:1) gained 2.00 MiB in 60 s (95 % sure: 1.00 MiB to 4.00 MiB)",
        "diagnostics blackbox /var/lib/black/0.ring",
    ]
    places = [text.index(words) for words in (*told, "Streams are buffered")]
    assert places == sorted(places)


def test_why_a_process_has_no_agent_is_a_sentence_below_the_table_in_a_narrow_terminal_too(
    service: Any, http: Any
) -> None:
    """In 80 columns it was a column of one word a line."""
    overview = http(
        f"{service.monitor}/debug/memory", headers={"Authorization": "Bearer look", "Accept": "application/json"}
    ).json()
    why = "it does not listen, so it has no agent; start the service with DIAGNOSTICS_AGENT=always to capture it"
    known = {"role": "child", "rss_bytes": 1, "pss_bytes": 1, "private_bytes": 1, "reason": why}
    overview["service"]["children"] = [
        {**known, "pid": pid, "program": "python3", "worker": "0"} for pid in (4_000_001, 4_000_002)
    ]
    out = io.StringIO()
    Console(file=out, width=80).print(shown(overview))
    lines = out.getvalue().splitlines()
    said = next(number for number, line in enumerate(lines) if "it does not listen" in line)
    assert lines[said].startswith("  pid 4000001, 4000002: it does not listen")
    assert "capture it" in lines[said + 1]
    assert "service: 1 process, 1 worker among them;" in out.getvalue()


def test_rules_are_shown_and_tried_on_the_recording(service: Any, eventually: Any, tmp_path: Path) -> None:
    look = {"DIAGNOSTICS_READ_TOKEN": "look"}
    code, text = told("rules", service.monitor, **look)
    assert (code, "limit-near" in text, "nothing fired" in text) == (0, True, True)
    file = tmp_path / "rules.toml"
    file.write_text(RULES.format(above="'much'"), encoding="utf-8")
    code, text = told("rules", service.monitor, str(file), "--dry-run", **look)
    assert (code, "rule 'buffers': above is 'much'" in text) == (2, True)
    file.write_text(RULES.format(above=1000), encoding="utf-8")
    code, text = told("rules", service.monitor, str(file), **look)
    assert (code, "add --dry-run" in text) == (2, True)
    code, text = told("rules", service.monitor, str(file), "--dry-run", **look)
    assert (code, "captures nothing" in text) == (2, True)  # POST, which the token to read may not


def test_nobody_answers() -> None:
    code, text = told("status", "http://127.0.0.1:1")
    assert (code, "no monitor answers" in text) == (3, True)


def test_a_watch_in_a_terminal_goes_on_until_interrupted(service: Any) -> None:
    code, seen = watched(service.monitor, lambda text: text.count("worker 0 (pid") >= 3, DIAGNOSTICS_READ_TOKEN="look")
    assert code == 130
    assert "\x1b[" in seen  # colours, and each picture over the one before
    for word in ("Streams are buffered", "python_live", "largest streams", "/chat"):
        assert word in seen
    assert "Traceback" not in seen


def test_a_line_that_gained_is_named_before_it_is_known_to_grow_all_along(service: Any, http: Any) -> None:
    """In the minute after an alarm a third of the time has a handful of samples: that is not enough to call it steady."""
    overview = http(
        f"{service.monitor}/debug/memory", headers={"Authorization": "Bearer look", "Accept": "application/json"}
    ).json()

    def row(name: str, low: float, *, grows: bool) -> dict[str, Any]:
        figure = {"low": low, "mid": 8 * 1024**2, "high": 16 * 1024**2}
        return {
            "name": name,
            "in": None,
            "grows": grows,
            **dict.fromkeys(("held_bytes", "grown_bytes", "per_hour"), figure),
        }

    def text(alarm: bool, *rows: dict[str, Any]) -> str:
        worker = overview["workers"][0]
        worker["verdict"]["alarm"] = alarm
        worker["heap"] = {"reason": None}
        worker["lines"] = {"since": 0.0, "seconds": 60.0, "lives": 1, "rows": list(rows), "unknown": None}
        out = io.StringIO()
        Console(file=out, width=160).print(shown(overview))
        return out.getvalue()

    leaks, maybe, noise = (
        row("f (a.py:1)", 1.0, grows=True),
        row("g (a.py:2)", 2.0, grows=False),
        row("h", -3.0, grows=False),
    )
    found = text(True, noise, maybe)
    assert "lines that gained, within 60 s; whether steadily is not known yet" in found
    assert "g (a.py:2)" in found
    assert "h\n" not in found.partition("lines that gained")[2].partition("RSS")[0]
    found = text(True, leaks, maybe)
    assert "lines that grow, within 60 s" in found
    assert "g (a.py:2)" not in found
    assert "live heap: no line of code gained beyond doubt" in text(True, noise)
    assert "lines that" not in text(False, noise, maybe)
