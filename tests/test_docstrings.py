"""Every example in a docstring is run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from types import ModuleType

import pytest

import diagnostics
import relay


def modules_with_examples(package: ModuleType) -> list[str]:
    root = Path(str(package.__file__)).parent
    return [
        ".".join((package.__name__, *path.relative_to(root).with_suffix("").parts))
        for path in sorted(root.rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    ]


@pytest.mark.parametrize("name", [*modules_with_examples(diagnostics), *modules_with_examples(relay)])
def test_the_examples_in_a_docstring_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
