"""Every command that the documentation tells a reader to type exists, with the options that it is given."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# `diagnostics verify NAME --report DIR`, in a code block or in backticks, up to a comment or the end of the quote.
COMMAND = re.compile(
    r"(?:^ {4,}|^\$ |`)(?:python -m )?(diagnostics|relay) ([a-z-]+)(?=[\s`])([^`#\n|>]*)", re.MULTILINE
)

# A command in quotes has options of its own.
QUOTED = re.compile(r"'[^']*'")


def told() -> list[tuple[str, str, str, tuple[str, ...]]]:
    return sorted(
        {
            (
                page.name,
                program,
                command,
                tuple(re.findall(r"(?<!\S)(--[a-z][a-z-]+)", QUOTED.sub("", rest).split(" -- ")[0])),
            )
            for page in PAGES
            for program, command, rest in COMMAND.findall(page.read_text(encoding="utf-8"))
        }
    )


@lru_cache
def usage(program: str, command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", program, command, "--help"],
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=250,
    )
    return done.stdout if done.returncode == 0 else ""


def test_there_is_something_to_check() -> None:
    assert len({command for _, _, command, _ in told()}) >= 8


@pytest.mark.parametrize(("page", "program", "command", "options"), told())
def test_a_documented_command_exists_with_its_options(
    page: str, program: str, command: str, options: tuple[str, ...]
) -> None:
    known = usage(program, command)
    assert known, f"{page} tells to type `{program} {command}`, which does not exist"
    assert [option for option in options if option not in known] == []
