"""The pages that lead through the tree name places that exist, and the tree stays one that can be taken in at a look."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("CONTRIBUTING.md", "docs/inside.md", "docs/design.md")

# A file or folder in backticks: in a path, or with an ending that sources have. Not an address, a command or a test's own name.
PLACE = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|md|toml|txt))(?:::\w+)?`")
# Made by a command of the page, and not there in a fresh checkout.
MADE = {".venv"}
# Most files that one takes in at a look. In commands/ there is one for each command, and whoever looks for one knows its name.
MOST_MODULES = 15
BY_NAME = {"diagnostics/commands"}


def places(page: str) -> set[str]:
    return {each for each in PLACE.findall((ROOT / page).read_text(encoding="utf-8")) if each not in MADE}


@pytest.mark.parametrize("page", PAGES)
def test_every_place_that_a_page_names_exists(page: str) -> None:
    # What a page calls serving/server.py is relay/serving/server.py: inside.md is about the relay, and says so.
    bases = [ROOT, *([ROOT / "relay"] if page == "docs/inside.md" else [])]
    named = places(page)
    assert len(named) > 3, f"{page} names no places: the pattern above has lost them"
    assert sorted(each for each in named if not any((base / each).exists() for base in bases)) == []


def test_what_a_contributor_is_told_to_look_for_stands_in_the_file() -> None:
    rows = [
        line.strip("| ").split(" | ")
        for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Layout")[2].splitlines()
        if line.startswith("| ")
    ]
    assert len(rows) >= 12
    for what, where in rows:
        files = [ROOT / each for each in PLACE.findall(where) if (ROOT / each).is_file()]
        texts = "".join(each.read_text(encoding="utf-8") for each in files)
        assert [name for name in re.findall(r"`([A-Za-z_]+)`", where) if name not in texts] == [], what


def test_the_page_about_the_relay_has_each_of_its_parts() -> None:
    parts = {
        f"{each.name}/" if each.is_dir() else each.name
        for each in (ROOT / "relay").iterdir()
        if (each.suffix == ".py" and each.name != "__init__.py") or (each / "__init__.py").is_file()
    }
    table = [
        line.split("|")[1]
        for line in (ROOT / "docs/inside.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    assert parts == {name for cell in table for name in re.findall(r"`([^`]+)`", cell)}


def test_no_folder_has_more_files_than_one_can_take_in() -> None:
    folders = {
        str(folder.relative_to(ROOT)): sum(each.name != "__init__.py" for each in folder.glob("*.py"))
        for package in ("relay", "diagnostics")
        for folder in {each.parent for each in (ROOT / package).rglob("*.py")}
    }
    assert {name: n for name, n in folders.items() if n > MOST_MODULES and name not in BY_NAME} == {}
