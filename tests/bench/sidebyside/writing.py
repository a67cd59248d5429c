"""Figures into a page, between two markers, and into its data file, so that no figure is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def write_into(page: Path, text: str) -> None:
    """Replace what stands between the markers. Raises SystemExit where the page has not each of them once."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has no markers {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def write_data(file: Path, page: Mapping[str, Any]) -> None:
    """One line a peer of a case, so that what has changed is seen in a diff."""
    lines = []
    for name, case in page["cases"].items():
        peers = ",\n".join(f"   {json.dumps(peer)}: {json.dumps(found)}" for peer, found in case["peers"].items())
        lines.append(
            f'  {json.dumps(name)}: {{"title": {json.dumps(case["title"])}, "peers": {{\n{peers}}},\n'
            f'   "ratios": {json.dumps(case["ratios"])}}}'
        )
    text = ",\n".join(lines)
    file.write_text(f'{{"conditions": {json.dumps(page["conditions"])},\n "cases": {{\n{text}}}}}\n', encoding="utf-8")
