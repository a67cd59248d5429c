"""`diagnostics compare` on commands: Python, and a language that no agent can be put into. It can say no."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diagnostics.errors import UsageError
from diagnostics.proof.subjects.command import command_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

GROWING = Path(__file__).parent / "growing"
ROOT = Path(__file__).parents[2]
SERVE = f"{shlex.quote(sys.executable)} -m uvicorn app:app --port {{port}} --log-level warning"
LEAKING = f"env KEEP=200000 {SERVE}"
QUICK = ("--path", "/", "--seconds", "1.1", "--transient", "0.4", "--rounds", "3,5,8", "--streams", "6")


def compare(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diagnostics", "compare", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=800, check=False, cwd=GROWING)


def sides(numbers: Path) -> dict[str, dict[str, Any]]:
    return {side["side"]: side for side in json.loads(numbers.read_text())["scenarios"][0]["sides"]}


def test_a_fix_is_told_from_a_leak_and_the_evidence_names_the_line(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    done = compare("--before", LEAKING, "--after", SERVE, *QUICK, "--json", str(numbers))
    assert done.returncode == 0, done.stdout + done.stderr
    found = sides(numbers)
    assert {name: side["decision"] for name, side in found.items()} == {"before": "LEAK", "after": "BOUNDED"}
    assert found["before"]["finding"]["intervals"]["remains"]["mean"] == pytest.approx(200_000, rel=0.1)
    assert found["before"]["held"]["function"] == "keep_something"
    assert "before: LEAK" in done.stdout
    assert "after: BOUNDED" in done.stdout


@pytest.mark.needs("go", "golang-go")
def test_a_service_in_another_language_is_judged_from_outside_and_a_fix_that_is_none_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "service"
    subprocess.run(
        ["go", "build", "-o", program, GROWING / "service.go"],
        check=True,
        cwd=GROWING,
        env={**os.environ, "CGO_ENABLED": "0"},
    )
    numbers = tmp_path / "numbers.json"
    service = f"{program} -port {{port}}"
    words = ("--before", service, "--after", f"{service} -keep 2000000", *QUICK, "--least", "200000")
    done = compare(*words, "--json", str(numbers))
    assert done.returncode == 1, done.stdout + done.stderr
    found = sides(numbers)
    assert (found["before"]["decision"], found["after"]["decision"]) == ("BOUNDED", "LEAK")
    assert found["before"]["read"] == found["after"]["read"] == "rss"


@pytest.mark.parametrize(
    ("after", "code", "said"),
    [
        ("true --port 8000", 2, "has no {port}"),
        ("'unclosed {port}", 2, "No closing quotation"),
        ("sh -c 'echo cannot find the moon; exit 7' {port}", 3, "cannot find the moon"),
        ("sh -c 'echo waiting for the moon; sleep 60' {port}", 3, "waiting for the moon"),
    ],
)
def test_a_command_that_cannot_serve_is_told_with_its_last_words(after: str, code: int, said: str) -> None:
    done = compare("--before", SERVE, "--after", after, *QUICK, "--start", "3")
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stderr


def test_a_service_that_answers_errors_gets_no_verdict() -> None:
    failing = f"{shlex.quote(sys.executable)} -m http.server {{port}} --bind 127.0.0.1"
    done = compare("--before", SERVE, "--after", failing, *QUICK, "--method", "POST")
    assert done.returncode == 3
    assert "status_501" in done.stderr


def test_a_command_is_split_as_a_shell_would() -> None:
    assert command_of("sh -c 'a b' {port}", "--after") == ["sh", "-c", "a b", "{port}"]
    with pytest.raises(UsageError, match="--after 'x'"):
        command_of("x", "--after")
