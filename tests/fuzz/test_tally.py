"""What runs of fuzzing add up to."""

from __future__ import annotations

import sys
from pathlib import Path

from tests import counting
from tests.fuzz import tally


def test_runs_of_one_day_and_code_are_one_entry_and_others_add_up(tmp_path: Path) -> None:
    file = tmp_path / "tally.json"
    for inputs, failed in ((1000, False), (500, True)):
        tally.add("sse", inputs, 1.5, guided=True, failed=failed, file=file)
    tally.add("sse", 7, 1.0, guided=False, failed=False, file=file)
    lines = counting.read(file)
    assert [(line["inputs"], line["seconds"], line["failed"]) for line in lines] == [(1500, 3.0, 1), (7, 1.0, 0)]
    assert "| sse | 1,507 | 1,500 | 0.00 | 1 |" in tally.table(lines)
    assert tally.table(lines).startswith("1,507 inputs, 0 % of the 10,000,000 aimed at")


def test_what_is_counted_is_what_the_fuzzer_says_that_it_has_run(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "tally.json"
    says = "import sys; print('stat::number_of_executed_units: 4242', file=sys.stderr); sys.exit(int(sys.argv[1]))"
    assert tally.counted("http", [sys.executable, "-c", says, "0"], file)
    assert not tally.counted("http", [sys.executable, "-c", says, "77"], file)
    (line,) = counting.read(file)
    assert (line["target"], line["inputs"], line["guided"], line["failed"]) == ("http", 8484, True, 1)
    assert "4,242 inputs" in capsys.readouterr().out
