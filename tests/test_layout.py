"""The rules that keep the agent loadable anywhere: checked on the source, not on what happens to be installed."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import diagnostics
from diagnostics.agent.readings.allocation import tracemalloc

ROOT = Path(diagnostics.__file__).parent
# What builds the extension runs in the build's own environment, and is in no wheel.
AGENT = {*(ROOT / "agent").rglob("*.py")} - {ROOT / "agent" / "native" / "build.py"}
STANDARD_ONLY = sorted([*AGENT, ROOT / "protocol.py", ROOT / "errors.py"])


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", STANDARD_ONLY, ids=lambda path: str(path.relative_to(ROOT)))
def test_agent_and_protocol_import_only_the_standard_library(path: Path) -> None:
    # memray is imported inside its own reading, when it is asked for.
    # The start-up hook runs the sitecustomize that it stands in front of.
    allowed = sys.stdlib_module_names | {
        {"memray.py": "memray", "sitecustomize.py": "sitecustomize"}.get(path.name, "")
    }
    assert imported(ast.parse(path.read_text(encoding="utf-8"))) <= allowed


def test_the_files_of_the_agent_that_a_trace_leaves_out_are_there() -> None:
    # A file that has moved would make the agent's own allocations the service's, without a word.
    gone = [path for path in tracemalloc._OWN_FILES if not Path(path).is_file()]
    assert gone == []


def test_public_names_are_the_listed_ones() -> None:
    assert set(diagnostics.__all__) == set(diagnostics._HOMES)
    assert {name for name in diagnostics.__all__ if not hasattr(diagnostics, name)} == set()


def test_every_program_that_a_test_needs_is_installed_by_ci() -> None:
    root = Path(__file__).parent
    listed = {
        name
        for line in (root / "debian-packages.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
        for name in line.split("|")
    }
    needed = {
        node.args[1].value
        for path in root.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "needs"
        if len(node.args) == 2 and isinstance(node.args[1], ast.Constant)
    }
    assert needed <= listed
