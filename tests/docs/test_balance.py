"""docs/balance.md explains every part that there is, and none that there is not."""

from __future__ import annotations

import re
from pathlib import Path

from diagnostics.analysis.balance import PARTS

PAGE = (Path(__file__).parents[2] / "docs" / "balance.md").read_text(encoding="utf-8")


def test_every_part_is_explained() -> None:
    section = PAGE.partition("## The parts")[2].partition("## ")[0]
    first_table = section.partition("A part that nobody tells")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", first_table, re.MULTILINE)) == PARTS
