"""What an on-call reads first, second and third: the verdict's sentence with its evidence, then the rows of a capture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .table import APPS

_FIRST = 3
# Where a file's package begins: the folder of an exhibit's environment has the exhibit's name, which names nothing.
_INSTALLED = re.compile(r"\S*/(?:site-packages|lib/python3\.\d+)/")
# An exhibit's app has the library's name as well, and any way through its module would seem to name that. Only a pattern that
# asks for an app, by its file and the number of a line, is looked for in it.
_APP = re.compile(rf"\b(?:{'|'.join(sorted(path.stem for path in APPS.glob('*_app.py')))})\b")


@dataclass(frozen=True)
class Named:
    """In the order in which it is read."""

    lines: tuple[str, ...] = ()

    def rank(self, culprit: Sequence[str]) -> int | None:
        """The first line that matches, from 1; None where none of the first three does."""
        for number, line in enumerate(self.lines[:_FIRST], 1):
            text = _INSTALLED.sub("", line)
            if any(re.search(pattern, text if "_app" in pattern else _APP.sub("", text)) for pattern in culprit):
                return number
        return None

    def then(self, capture: Mapping[str, Any]) -> Named:
        """With the rows of a capture that was taken after it."""
        rows = [_row(row, capture) for row in capture.get("top") or ()]
        return Named((*self.lines, *rows, *map(str, capture.get("streams") or ())))

    def shown(self) -> list[str]:
        return list(self.lines[:_FIRST])


def named(verdict: Mapping[str, Any]) -> Named:
    """verdict: one as /debug/memory/verdict tells it."""
    return Named(("; ".join([verdict["says"], *(one["what"] for one in verdict.get("evidence", ()))]),))


def _row(row: Mapping[str, Any], capture: Mapping[str, Any]) -> str:
    """One row of a capture with where it is and the first path that keeps it alive."""
    name = row.get("type") or row.get("task") or row.get("function") or "?"
    where = f" in {row['file']}:{row.get('line', '')}" if row.get("file") else ""
    caller = row.get("caller")
    if caller:
        where += f", called from {caller['function']} {caller['file']}:{caller['line']}"
    ways = (capture.get("paths") or {}).get(name) or ()
    kept = f", kept alive by {ways[0].get('path')}" if ways else ""
    return f"{name}{where}{kept}"
