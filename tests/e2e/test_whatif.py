"""`diagnostics whatif` on a real service: malloc keeps the holes that its answers leave, and one setting gives them back."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(600)]

GROWING = Path(__file__).parent / "growing"
PYTHON = shlex.quote(sys.executable)
HOLES = f"{PYTHON} -m uvicorn holes:app --port {{port}} --log-level warning"


def whatif(command: str, *words: str) -> subprocess.CompletedProcess[str]:
    work = ("--path", "/", "--streams", "4", "-n", "12", "--slow", "0", "--settle", "0.3", "--rounds", "3")
    asked = [sys.executable, "-m", "diagnostics", "whatif", *work, *words, "--", *shlex.split(command)]
    return subprocess.run(asked, capture_output=True, encoding="utf-8", timeout=500, check=False, cwd=GROWING)


@pytest.mark.skipif("glibc" not in __import__("platform").libc_ver()[0], reason="the setting is glibc's")
def test_a_setting_that_gives_back_what_malloc_keeps_pays(tmp_path: Path) -> None:
    """Six starts of a service, a second each: that is what is to be measured."""
    numbers = tmp_path / "numbers.json"
    done = whatif(HOLES, "--only", "mmap threshold", "--json", str(numbers))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mmap threshold pays: MALLOC_MMAP_THRESHOLD_=65536" in done.stdout
    told = json.loads(numbers.read_text(encoding="utf-8"))
    as_it_is, mapped = told["settings"]
    assert told["pays"] == mapped["name"] == "mmap threshold"
    assert mapped["settled_saved"]["low"] > 0.05
    assert all(run["streams"] == 12 and run["events"] >= 36 for each in (as_it_is, mapped) for run in each["runs"])
    assert "--only 'mmap threshold' -- " in told["command"]


def test_a_service_that_never_serves_and_a_setting_that_does_not_reach_it_are_told() -> None:
    done = whatif("sh -c 'echo no moon; exit 7' {port}", "--only", "python malloc")
    assert done.returncode == 3
    assert "no moon" in done.stderr
    assert whatif("true", "--only", "python malloc").returncode == 2
    # The shell takes the setting out of the environment that it is given.
    done = whatif(
        f"sh -c {shlex.quote(f'unset PYTHONMALLOC; exec {HOLES}')}", "--only", "python malloc", "--seconds", "1"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "python malloc was not tried: PYTHONMALLOC=malloc does not reach the service" in done.stdout
