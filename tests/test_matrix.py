"""What `make matrix` runs on: where an interpreter is looked for, what is said of one that cannot be had, and the table."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The matrix's own modules, which are a program and no package."""
    names = ("environments", "interpreters", "roots", "run", "table")
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "matrix"))
    import interpreters
    import run
    import table

    yield {"interpreters": interpreters, "run": run, "table": table}
    for name in names:
        sys.modules.pop(name, None)


def test_the_package_claims_what_the_matrix_runs(matrix: Any) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    said = "Programming Language :: Python :: 3."
    claimed = [f"3.{line.removeprefix(said)}" for line in project["classifiers"] if line.startswith(said)]
    assert tuple(claimed) == matrix["interpreters"].VERSIONS
    assert project["requires-python"] == f">={claimed[0]}"


def test_an_interpreter_of_pyenv_is_found_beside_those_that_do_not_start(
    matrix: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if OWN not in matrix["interpreters"].VERSIONS:
        pytest.skip(f"the matrix has no {OWN}")
    for number, broken in ((1, False), (99, True)):
        command = tmp_path / "versions" / f"{OWN}.{number}" / "bin" / "python"
        command.parent.mkdir(parents=True)
        command.write_text(
            "#!/bin/sh\nexit 127\n" if broken else f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8"
        )
        command.chmod(0o755)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    found = matrix["interpreters"].find(OWN)
    assert found.command == str(tmp_path / "versions" / f"{OWN}.1" / "bin" / "python")
    assert found.version == ".".join(map(str, sys.version_info[:3]))


def test_what_cannot_be_had_is_said_with_the_reason(
    matrix: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    reasons = {version: matrix["interpreters"].find(version).reason for version in ("3.12", "3.14")}
    assert reasons["3.12"] == "python3.12 is neither on PATH nor in pyenv, and no Debian suite has it"
    assert "by root only" in reasons["3.14"]
    row = matrix["table"].Row.missing("3.14", reasons["3.14"])
    assert "not run" in row.summary
    assert not row.ran


def test_words_choose_versions(matrix: Any) -> None:
    of_words, newest = matrix["interpreters"].of_words, matrix["interpreters"].VERSIONS[-1]
    assert of_words(["3.14", "3.12"], "3.11") == ["3.12", "3.14"]
    chosen = of_words(["newest", "another"], "3.11")
    assert len(chosen) == 2
    assert chosen[-1] == newest
    assert "3.11" not in chosen
    with pytest.raises(SystemExit, match=r"no such version: '2\.7'"):
        of_words(["2.7"], "3.11")


SOME_TESTS = """
import pathlib
import pytest

def test_right(): pass
def test_wrong(): raise AssertionError
@pytest.mark.skip
def test_skipped(): pass
@pytest.mark.parametrize("name", ["a", "b"])
def test_unsteady(name):
    seen = pathlib.Path(__file__).with_name(name)
    if not seen.exists():
        seen.touch()
        raise AssertionError
"""


@pytest.mark.parametrize("again", [True, False])
def test_what_passes_at_the_second_time_is_no_failure_and_is_named(
    matrix: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, again: bool
) -> None:
    monkeypatch.setattr(matrix["run"], "ENVIRONMENTS", tmp_path)
    (tmp_path / "test_some.py").write_text(SOME_TESTS, encoding="utf-8")
    here = matrix["interpreters"].Interpreter(OWN, "3", sys.executable)
    asked = matrix["run"].Asked([str(tmp_path / "test_some.py")], False, False, 2, True, again)
    row = matrix["run"]._pytest(here, Path(sys.executable), asked)
    counts = (row.passed, row.skipped, row.failed)
    assert counts == ((3, 1, 1) if again else (1, 1, 3))
    named = [name.rpartition(".")[2] for name in row.unsteady]
    assert named == (["test_unsteady[a]", "test_unsteady[b]"] if again else [])
    assert ("test_unsteady[a]" in row.summary) is again


def test_tests_that_cannot_even_begin_are_a_failure(
    matrix: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(matrix["run"], "ENVIRONMENTS", tmp_path)
    here = matrix["interpreters"].Interpreter(OWN, "3", sys.executable)
    asked = matrix["run"].Asked([str(tmp_path / "none.py")], False, False, 2, True, True)
    row = matrix["run"]._pytest(here, Path(sys.executable), asked)
    assert (row.passed, row.failed) == (0, 1)
    assert "pytest ended with" in row.why


def test_the_last_run_of_each_version_is_kept(matrix: Any, tmp_path: Path) -> None:
    table = matrix["table"]
    last = table.Row("3.12", "3.12.1", "this machine", 8, day="2026-11-29", code="b")
    for row in (table.Row("3.12", "3.12.1", failed=1, code="a"), table.Row("3.13", "3.13.0"), last):
        table.keep(tmp_path / "kept", row)
    assert sorted(table.kept(tmp_path / "kept")) == ["3.12", "3.13"]
    assert table.kept(tmp_path / "kept")["3.12"] == last


def test_the_table_is_put_between_the_marks_of_its_page(matrix: Any, tmp_path: Path) -> None:
    table, page = matrix["table"], tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", encoding="utf-8")
    ran = table.Row("3.12", "3.12.1", "this machine", 7, 1, 0, seconds=61.4, day="2026-11-29", code="v1-7")
    rows = [ran, table.Row.missing("3.14", "no Debian")]
    table.write(page, table.rendered(rows, ["tests"]))
    text = page.read_text(encoding="utf-8")
    assert "| 3.12.1 | this machine | 7 | 1 | 0 | not run | 61 | 2026-11-29 | v1-7 |" in text
    assert "| 3.14 | not run: no Debian |" in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="no marks"):
        table.write(page, "table")
    published = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    assert table.BEGIN in published
    assert table.END in published
