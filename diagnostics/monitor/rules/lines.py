"""Where the keys of a rules' file stand: line numbers for its faults. Pure.

`tomllib` gives values without their places. This finds the headers and keys of a file that it has read: a line that begins
with a key is that key's, unless it is within a text of several lines. What is written in one line (`action = [{do = "log"}]`)
has that line.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["Place", "line_of", "places"]

# ("rule", 2, "action", 0, "url"): the third rule's first action's url.
Place = tuple[str | int, ...]

_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([^\]#]+?)\s*\]")
_KEY: Final = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*[.=]""")
_FENCE: Final = re.compile(r'"""|\'\'\'')


def places(text: str) -> dict[Place, int]:
    """The line, from 1, of every table and key of a file that is TOML."""
    found: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    fence = ""
    for number, line in enumerate(text.split("\n"), 1):
        if not fence:
            header, key = _HEADER.match(line), _KEY.match(line)
            if header is not None:
                table = _table(header[2], header[1] == "[[", counts)
                for place in (table, table[:-1]) if header[1] == "[[" else (table,):
                    found.setdefault(place, number)
            elif key is not None:
                found.setdefault((*table, next(word for word in key.groups() if word is not None)), number)
        fence = _open_fence(line, fence)
    return found


def line_of(found: dict[Place, int], place: Place) -> int | None:
    """The line of this place, or of the nearest table around it."""
    for length in range(len(place), 0, -1):
        if place[:length] in found:
            return found[place[:length]]
    return None


def _table(name: str, repeated: bool, counts: dict[Place, int]) -> Place:
    """The place that a header opens; within tables that are repeated, of the last one."""
    words = [word.strip().strip("\"'") for word in name.split(".")]
    place: Place = ()
    for at, word in enumerate(words):
        place = (*place, word)
        if at == len(words) - 1 and repeated:
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place


def _open_fence(line: str, fence: str) -> str:
    """The quotes of the text of several lines that is open after this line; "" where none is."""
    for match in _FENCE.finditer(line):
        if not fence:
            if "#" in line[: match.start()]:
                return ""
            fence = match[0]
        elif match[0] == fence:
            fence = ""
    return fence
