"""What was run so far of something that takes more hours than one machine has: entries in a JSON file that is committed.

An entry is of one day and one state of the code; what runs adds to it, and the next machine goes on where the last one was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["entry", "read", "write"]

Entry = dict[str, Any]


def read(file: Path) -> list[Entry]:
    """The entries of a file; none where there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def write(file: Path, entries: list[Entry]) -> None:
    """Whole or not at all, an entry a line."""
    new = file.with_suffix(".new")
    new.write_text("[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n", encoding="utf-8")
    new.replace(file)


def entry(entries: list[Entry], same: Entry, empty: Entry) -> Entry:
    """The entry that has all of `same`; a new one, with what is in `empty`, where there is none."""
    for found in entries:
        if {name: found.get(name) for name in same} == same:
            return found
    entries.append({**same, **empty})
    return entries[-1]
