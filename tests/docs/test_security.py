"""docs/security.md names for each promise the test that shows it: every one of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.findall(r"`(tests/[\w/.-]+\.py)::(\w+)`", (ROOT / "docs" / "security.md").read_text(encoding="utf-8"))


def test_there_is_a_test_for_each_row_of_each_table_of_threats() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [
        row for table in re.findall(r"\| shown by \|\n\|[-|]+\|\n((?:\|.*\n)+)", text) for row in table.splitlines()
    ]
    assert len(rows) > 30
    assert [row for row in rows if "::" not in row.rpartition(" | ")[2]] == []


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED}))
def test_every_test_that_is_named_exists(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    there = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert {name for named, name in NAMED if named == path} <= there
