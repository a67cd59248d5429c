"""`diagnostics blackbox`: a recording as text, JSON and CSV; a damaged one as far as it goes; exit 0 or 2, nothing else."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from diagnostics import cli
from diagnostics.monitor.recording.ring import Header, RingFile, RingSize
from diagnostics.monitor.recording.vitals import FIELDS

STARTED = 1_800_000_000.0


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A minute and a half of a worker that leaked 1 MiB and 2 streams a second, and was killed."""
    path = tmp_path / "a.ring"
    process = {"pid": 4711, "worker": "\x1b[31m0", "started": STARTED}
    header = Header(
        tuple((field.name, field.unit) for field in FIELDS), (RingSize(1.0, 90), RingSize(60.0, 10)), process
    )
    file = RingFile.create(path, header)
    for second in range(100):
        told = {
            "time": STARTED + second,
            "rss_bytes": 50 * 2**20 + second * 2**20,
            "in_use_bytes": 40 * 2**20 + second * 2**20,
            "cgroup_working_bytes": 50 * 2**20 + second * 2**20,
            "cgroup_limit_bytes": 160 * 2**20,
            "events_total": 10.0 * second,
            "streams_finished_total": 2.0 * second,
            "loop_lag_seconds": 0.0015,
        }
        file.append(0, [told.get(field.name, math.nan) for field in FIELDS])
    file.write_end({"returncode": -9, "said": "It was ended by SIGKILL.", "noticed": STARTED + 100})
    file.close()
    return path


def run(capfd: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = cli.main(["blackbox", *map(str, arguments)])
    output, errors = capfd.readouterr()
    return code, output, errors


def test_the_text_has_the_last_readings_the_end_and_the_trend(
    recording: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, text, errors = run(capfd, recording, "-n", "2")
    assert (code, errors) == (0, "")
    assert text == (
        "worker \\x1b[31m0 (pid 4711), started 2027-01-15 08:00:00 UTC\n"
        "90 readings 1 s apart\n"
        "0 readings 60 s apart\n"
        "It was ended by SIGKILL. Noticed 2027-01-15 08:01:40 UTC.\n"
        "\n"
        "                   time         RSS      in use      cgroup  streams  buffered  tasks  events/s  lag ms  PSI %\n"
        "2027-01-15 08:01:38 UTC  148.00 MiB  138.00 MiB  148.00 MiB        -         -      -        10     1.5      -\n"
        "2027-01-15 08:01:39 UTC  149.00 MiB  139.00 MiB  149.00 MiB        -         -      -        10     1.5      -\n"
        "\n"
        "in use: growing, +1.00 MiB a second (+1.00 MiB to +1.00 MiB) over 74 s; +500.00 MiB for 1,000 finished streams\n"
        "RSS: growing, +1.00 MiB a second (+1.00 MiB to +1.00 MiB) over 74 s; +500.00 MiB for 1,000 finished streams\n"
        "cgroup working set: growing, +1.00 MiB a second (+1.00 MiB to +1.00 MiB) over 74 s; "
        "+500.00 MiB for 1,000 finished streams\n"
        "limit: 149.00 MiB of 160.00 MiB used at the last reading; at this slope it was 11 s away\n"
    )


def test_json_and_csv_hold_every_reading(recording: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capfd, recording, "--json")
    told = json.loads(text)
    assert (code, len(told["rows"]), told["end"]["returncode"]) == (0, 90, -9)
    code, text, _ = run(capfd, recording, "--csv")
    lines = list(csv.DictReader(io.StringIO(text)))
    assert (code, len(lines)) == (0, 90)
    assert lines[-1]["rss_bytes"] == str(149 * 2**20)
    assert lines[-1]["tasks"] == ""


def test_bad_records_are_left_out_and_counted(recording: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(recording.read_bytes())
    data[4096] ^= 1
    data[8192 + 50] ^= 1
    recording.write_bytes(data[:-5])
    code, text, _ = run(capfd, recording, "-n", "0")
    assert code == 0
    assert "89 readings 1 s apart, 1 bad ones left out" in text
    assert "How it ended is damaged in this file." in text
    assert "no readings" in text


def test_what_is_no_recording_is_bad_input(recording: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(recording.read_bytes())
    cut = tmp_path / "cut"
    cut.write_bytes(data[:4096])
    data[40] ^= 1
    recording.write_bytes(data)
    empty = tmp_path / "empty"
    empty.touch()
    for path, says in (
        (recording, "its checksum is wrong"),
        (empty, "this is no recording"),
        (cut, "no reading in it is whole"),
        (tmp_path / "nowhere", "no such file"),
        (tmp_path, "not a file"),
    ):
        code, text, errors = run(capfd, path)
        assert (code, text) == (2, "")
        assert str(path) in errors
        assert says in errors


def test_a_recording_of_a_running_worker_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "b.ring"
    RingFile.create(path, Header((("time", "seconds"), ("colour", "")), (RingSize(1.0, 5),), {})).close()
    code, text, _ = run(capfd, path)
    assert code == 0
    assert "No end is written" in text
    assert "started an unknown time" in text
