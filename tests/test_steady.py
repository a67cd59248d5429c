"""The command that runs the suite in many surroundings: its surroundings are what they are said to be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests import steady

REPORT = """<testsuites><testsuite>
<testcase classname="a.b" name="passes"/>
<testcase classname="a.b" name="fails"><failure/></testcase>
<testcase classname="a.b" name="cannot be set up"><error/></testcase>
<testcase classname="a.b" name="is skipped"><skipped/></testcase>
</testsuite></testsuites>"""


def row(number: int, **more: object) -> dict[str, object]:
    return {
        "user": "root", "time_wait": 5012, "seed": 7, "passed": 2211, "skipped": 3, "failed": [], "status": 0,
        "minutes": 7.25, "cpu_minutes": 9.5, "round": number, "code": "1a2b3c4", **more,
    }  # fmt: skip


def test_half_of_the_rounds_are_loaded_and_half_are_roots() -> None:
    assert [this.number for this in steady.ROUNDS] == list(range(1, 11))
    for half in ({this.number for this in steady.ROUNDS if this.loaded}, {t.number for t in steady.ROUNDS if t.root}):
        assert len(half) == 5


def test_what_failed_is_counted_by_name(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT, encoding="utf-8")
    told = steady.outcomes(tmp_path / "report.xml")
    assert told == {"passed": 1, "skipped": 1, "failed": ["a.b.cannot be set up", "a.b.fails"]}
    assert steady.outcomes(tmp_path / "none")["failed"]


def test_the_table_stands_between_its_markers_and_tells_a_run_that_did_not_end(tmp_path: Path) -> None:
    document = tmp_path / "CONTRIBUTING.md"
    document.write_text(f"before\n{steady.BEGIN}\nold\n{steady.END}\nafter\n", encoding="utf-8")
    steady.write(steady.table({1: row(1), 6: row(6, status=-9, failed=["a"], code="5d6e7f8")}), document)
    text = document.read_text(encoding="utf-8")
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| 2,211 | 3 | 0 | 7.2 | 9.5 | 1a2b3c4 |" in text
    assert "5d6e7f8" in text
    assert "5,012 or more in TIME_WAIT" in text
    assert "1, ended -9" in text
    document.write_text("no markers", encoding="utf-8")
    with pytest.raises(SystemExit, match="no place for the table"):
        steady.write("table", document)


def test_programs_are_hidden_and_all_others_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("hidden", "kept"):
        (folder / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    path = steady.path_without(["hidden"], tmp_path / "mirror")
    assert shutil.which("hidden", path=path) is None
    assert shutil.which("kept", path=path)
    assert shutil.which("sh", path=path)


def test_sockets_in_time_wait_are_there_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "TIME_WAITS", 50)
    with steady.TimeWaits() as waits:
        port = f":{waits.port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]]
        assert sum(fields[1].endswith(port) and fields[3] == "06" for fields in rows) >= 50
    assert not waits.is_alive()


@pytest.mark.parametrize(("text", "found"), [("3", [3]), ("1,3-5", [1, 3, 4, 5])])
def test_rounds_are_asked_for_by_number(text: str, found: list[int]) -> None:
    assert steady.numbers(text) == found


def test_a_round_that_there_is_not_is_refused() -> None:
    with pytest.raises(Exception, match="there is no round 11"):
        steady.numbers("9-11")
