"""A real memray capture, made in a process of its own, read back through the command that the monitor runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

memray = pytest.importorskip("memray")

from diagnostics.analysis.profile import Profile  # noqa: E402

# 400 blocks of 10,000 bytes stay; 8 MB come and go.
SUBJECT = """
import os, sys, threading
import memray

kept = []

def hold(count):
    for _ in range(count):
        kept.append(bytearray(10_000))

def passing():
    return [bytearray(80_000) for _ in range(100)]

path, file_format, python_allocators, end = sys.argv[1:]
with memray.Tracker(
    destination=memray.FileDestination(path, overwrite=True),
    file_format=memray.FileFormat[file_format],
    trace_python_allocators=python_allocators == "python",
):
    hold(200)
    thread = threading.Thread(target=hold, args=(200,))
    thread.start()
    thread.join()
    passing()
    if end == "killed":
        os._exit(9)
"""


def capture(path: Path, file_format: str = "AGGREGATED_ALLOCATIONS", allocators: str = "", end: str = "") -> Path:
    command = [sys.executable, "-c", SUBJECT, str(path), file_format, allocators, end]
    done = subprocess.run(command, check=False, capture_output=True, timeout=250)
    assert done.returncode == (9 if end == "killed" else 0), done.stderr
    return path


def convert(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diagnostics.monitor.captures.memray_file", str(path), *arguments]
    return subprocess.run(command, check=False, capture_output=True, encoding="utf-8", timeout=250)


def read(path: Path, *arguments: str) -> Profile:
    done = convert(path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return Profile.from_json(json.loads(done.stdout))


def held_by(profile: Profile, function: str) -> int:
    return sum(sample.values[0] for sample in profile.samples if function in {frame.function for frame in sample.stack})


@pytest.mark.parametrize("file_format", ["AGGREGATED_ALLOCATIONS", "ALL_ALLOCATIONS"])
@pytest.mark.parametrize("allocators", ["", "python"])
def test_leaked_holds_what_stayed_and_not_what_passed(tmp_path: Path, file_format: str, allocators: str) -> None:
    profile = read(capture(tmp_path / "capture.bin", file_format, allocators), "--of", "leaked")
    assert [kind.name for kind in profile.sample_types] == ["inuse_space", "inuse_objects"]
    assert 4_000_000 <= held_by(profile, "hold") <= 4_200_000
    assert held_by(profile, "passing") < 1000  # what the interpreter keeps for itself
    assert profile.duration > 0
    arenas_noted = any("arenas" in note for note in profile.not_covered)
    assert arenas_noted == (allocators == "")


def test_high_water_holds_the_peak(tmp_path: Path) -> None:
    profile = read(capture(tmp_path / "capture.bin"), "--of", "high-water")
    assert held_by(profile, "passing") >= 8_000_000
    assert profile.total() == profile.meta["peak_bytes"]


def test_meta_says_how_much_has_a_stack_and_keeps_the_command_line_out(tmp_path: Path) -> None:
    done = convert(capture(tmp_path / "capture.bin"))
    meta: dict[str, Any] = json.loads(done.stdout)["meta"]
    assert meta["coverage_percent"] > 95
    assert "command_line" not in meta
    assert str(tmp_path) not in done.stdout  # the subject was started with this path


def test_a_capture_that_was_killed_is_read_and_says_so(tmp_path: Path) -> None:
    profile = read(capture(tmp_path / "capture.bin", "ALL_ALLOCATIONS", end="killed"))
    assert any("after a kill" in note for note in profile.not_covered)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello, not memray at all", "is not one"),
        (b"\x04\x22\x4d\x18@@\xc0" + b"\0" * 4, "cannot be"),
    ],
    ids=["empty", "foreign", "lz4 of nothing"],
)
def test_what_is_no_capture_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "capture.bin"
    path.write_bytes(content)
    done = convert(path)
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert reason in done.stderr


def test_a_capture_that_is_cut_off_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    # memray itself reads such a file without an error, and reports a part of the bytes.
    whole = capture(tmp_path / "whole.bin", "ALL_ALLOCATIONS", "python").read_bytes()
    for cut in (5, 100, len(whole) // 2, len(whole) - 4, len(whole) - 1):
        path = tmp_path / "cut.bin"
        path.write_bytes(whole[:cut])
        done = convert(path)
        assert done.returncode == 2, cut
        assert "cut off" in done.stderr
    assert "copy or download it again" in done.stderr


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    done = convert(tmp_path / "missing.bin")
    assert done.returncode == 2
    assert "No such file" in done.stderr
