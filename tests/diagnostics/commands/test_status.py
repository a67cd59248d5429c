"""`diagnostics status` and `diagnostics rules` against a live monitor: what they print, and their exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
        check=False, capture_output=True, text=True, timeout=60, env={**_environment(), "COLUMNS": "160", **environment},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DIAGNOSTICS_")}


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
    code, text = told("status", service.monitor, DIAGNOSTICS_READ_TOKEN="look")
    assert code == 1
    for word in ("Streams are buffered", "64.00 MiB", "python_live", "/chat", "diagnostics capture http://"):
        assert word in text
    code, text = told("status", service.monitor)
    assert (code, "a token is needed" in text) == (2, True)


def test_rules_are_shown_and_tried_on_the_recording(service: Any, eventually: Any, tmp_path: Path) -> None:
    look = {"DIAGNOSTICS_READ_TOKEN": "look"}
    code, text = told("rules", service.monitor, **look)
    assert (code, "limit-near" in text, "nothing fired" in text) == (0, True, True)
    file = tmp_path / "rules.toml"
    file.write_text(RULES.format(above="'much'"))
    code, text = told("rules", service.monitor, str(file), "--dry-run", **look)
    assert (code, "rule 'buffers': above is 'much'" in text) == (2, True)
    file.write_text(RULES.format(above=1000))
    code, text = told("rules", service.monitor, str(file), **look)
    assert (code, "add --dry-run" in text) == (2, True)
    code, text = told("rules", service.monitor, str(file), "--dry-run", **look)
    assert (code, "captures nothing" in text) == (2, True)  # POST, which the token to read may not


def test_nobody_answers() -> None:
    code, text = told("status", "http://127.0.0.1:1")
    assert (code, "no monitor answers" in text) == (3, True)
