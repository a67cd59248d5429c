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

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]

GROWING = Path(__file__).parent / "growing"
ROOT = Path(__file__).parents[2]
PYTHON = shlex.quote(sys.executable)
SERVE = f"{PYTHON} -m uvicorn app:app --port {{port}} --log-level warning"
KINDS = f"{PYTHON} -m uvicorn kinds:app --port {{port}} --log-level warning"
LEAKING = f"env KEEP=200000 {SERVE}"
QUICK = ("--path", "/", "--seconds", "1.1", "--transient", "0.4", "--rounds", "3,5,8", "--streams", "6")
# Of whichever release this Debian has.
MIMALLOC = next((path.name for path in Path("/usr/lib").glob("*/libmimalloc.so.?")), "libmimalloc.so.2")


def compare(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diagnostics", "compare", *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=800, check=False, cwd=GROWING)


def sides(numbers: Path) -> dict[str, dict[str, Any]]:
    return {side["side"]: side for side in json.loads(numbers.read_text(encoding="utf-8"))["scenarios"][0]["sides"]}


def kind(command: str = KINDS, **environment: str) -> str:
    return shlex.join(["env", *(f"{name}={value}" for name, value in environment.items())]) + f" {command}"


def library(name: str) -> str:
    return str(next(Path("/usr/lib").glob(f"*/{name}"), ""))


def handed_out_for(nbytes: int, jemalloc: str) -> int:
    """How much this jemalloc takes for so many bytes (nallocx): of 200,000 its releases make 200,704 or 229,376."""
    asked = f"import ctypes; print(ctypes.CDLL(None).nallocx({nbytes}, 0))"
    told = subprocess.run(
        [sys.executable, "-c", asked], env={**os.environ, "LD_PRELOAD": jemalloc},
        check=True, capture_output=True, encoding="utf-8", timeout=60,
    )  # fmt: skip
    return int(told.stdout)


def test_each_kind_of_growth_has_its_word_and_its_line(tmp_path: Path) -> None:
    """Streams that flood clients who do not read gain while they are open; streams that leave something stay when they end."""
    numbers = tmp_path / "numbers.json"
    # A small send buffer, or the first seconds would go by in the kernel's.
    flooding = kind(
        f"{PYTHON} -m diagnostics.proof.subjects.serve kinds:app --port {{port}} --send-buffer 8192", FLOOD="200000"
    )
    done = compare("--before", flooding, "--after", LEAKING, *QUICK, "--json", str(numbers))
    assert done.returncode == 1, done.stdout + done.stderr
    found = sides(numbers)
    assert {name: side["decision"] for name, side in found.items()} == {"before": "UNBOUNDED", "after": "LEAK"}
    assert found["after"]["finding"]["intervals"]["remains"]["mean"] == pytest.approx(200_000, rel=0.1)
    # Of open streams: looked at while their buffers were full.
    assert (found["before"]["held"]["function"], found["after"]["held"]["function"]) == ("make", "keep_something")
    assert found["before"]["held"]["share"] > 0.5
    assert "before: UNBOUNDED (by bytes in use)" in done.stdout
    assert "after: LEAK (by bytes in use and by resident memory)" in done.stdout


@pytest.mark.needs("libjemalloc.so.2", "libjemalloc2")
def test_a_leak_of_whole_streams_is_told_at_its_size_under_another_allocator_too(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    leaking = kind(KEEP="200000", LD_PRELOAD=library("libjemalloc.so.2"))
    # A busy machine's rounds have few streams: more of them, where they are needed.
    words = ("--before", kind(KEEP="6050"), "--after", leaking, *QUICK, "--rounds", "3,5,8,16,32")
    done = compare(*words, "--no-capture", "--json", str(numbers))
    assert done.returncode == 1, done.stdout + done.stderr
    found = sides(numbers)
    assert {side["decision"] for side in found.values()} == {"LEAK"}
    assert all("bytes in use" in side["stands_on"] for side in found.values())
    # Not diluted by streams that were cut off at the end of a round; jemalloc rounds up, to pages or to its size classes.
    assert found["before"]["finding"]["intervals"]["remains"]["mean"] == pytest.approx(6_050, rel=0.05)
    taken = handed_out_for(200_000, library("libjemalloc.so.2"))
    assert found["after"]["finding"]["intervals"]["remains"]["mean"] == pytest.approx(taken, rel=0.05)
    # What ended streams leave is no growth of those that are open, though memory rises all through the round.
    for side in found.values():
        assert side["finding"]["intervals"]["growth"]["low"] < 32_768


@pytest.mark.needs(MIMALLOC, "libmimalloc2.0")
def test_what_no_allocator_tells_is_seen_in_resident_memory_and_the_proof_says_so(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    silent = kind(LD_PRELOAD=library(MIMALLOC))
    done = compare("--before", kind(MAP="200000"), "--after", silent, *QUICK, "--no-capture", "--json", str(numbers))
    before, after = sides(numbers).values()
    assert (before["decision"], before["read"]) == ("LEAK", "in_use"), done.stdout + done.stderr
    assert before["finding"]["intervals"]["remains"]["high"] < before["finding"]["intervals"]["remains"]["least"]
    assert before["finding"]["intervals"]["resident"]["mean"] == pytest.approx(200_000, rel=0.1)
    assert "before: LEAK (by resident memory alone: no allocator counts it" in done.stdout
    # Resident memory alone is a rough measure: on a busy machine it may leave the question open, and must accuse nobody.
    assert after["read"] == "rss"
    assert after["decision"] in ("BOUNDED", "INCONCLUSIVE"), done.stdout
    assert "libmimalloc" in after["in_use_unknown"]
    if after["decision"] == "BOUNDED":
        assert done.returncode == 0
        assert "after: BOUNDED (by resident memory alone, with a wider bound: libmimalloc" in done.stdout


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
    failing = f"{PYTHON} -m http.server {{port}} --bind 127.0.0.1"
    done = compare("--before", SERVE, "--after", failing, *QUICK, "--method", "POST")
    assert done.returncode == 3
    assert "status_501" in done.stderr


def test_a_command_is_split_as_a_shell_would() -> None:
    assert command_of("sh -c 'a b' {port}", "--after") == ["sh", "-c", "a b", "{port}"]
    with pytest.raises(UsageError, match="--after 'x'"):
        command_of("x", "--after")
