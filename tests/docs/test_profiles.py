"""The examples of docs/profiles.md run, in their order, and print what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from diagnostics import cli

PAGE = Path(__file__).parents[2] / "docs" / "profiles.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    printed = ""
    compared = 0
    for language, block in re.findall(
        r"^```(python|sh|text)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        if language == "python":
            exec(compile(block, str(PAGE), "exec"), {})
        elif language == "text":
            assert printed == block
            compared += 1
        else:
            for line in block.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "diagnostics"
                assert cli.main(arguments) == 0, line
            printed, errors = capfd.readouterr()
            assert errors == ""
    assert compared == 2
