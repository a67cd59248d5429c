"""The workers' numbers and the supervisors, in a file, so that a restarted monitor keeps them.

`<root>/workers.json` has identities (pid, boot, start), so that a process with a reused pid is not taken for the old one. A
damaged or unwritable file costs the numbers, and nothing else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..kernel.process import Identity

__all__ = ["Roster"]

log = logging.getLogger("diagnostics.monitor")


class Roster:
    """The file of one registry: `names` of workers, `supervisors`."""

    def __init__(self, root: Path) -> None:
        self._path = root / "workers.json"
        self._written = ""
        self._failed = False
        roster = _read(self._path)
        self.names: dict[Identity, str] = {who: name for name, who in _named(roster.get("workers"))}
        self.supervisors: set[Identity] = {who for _, who in _named(roster.get("supervisors"))}

    def name_of(self, who: Identity) -> str | None:
        """The number of this process; None where it has none."""
        return self.names.get(who)

    def keep(self, names: Mapping[str, Identity], supervisors: Iterable[Identity]) -> None:
        """Write the file, if the workers or supervisors have changed."""
        self.names = {who: name for name, who in names.items()}
        self.supervisors = set(supervisors)
        roster = {
            "workers": {name: asdict(who) for name, who in names.items()},
            "supervisors": {str(who.pid): asdict(who) for who in self.supervisors},
        }
        text = json.dumps(roster, sort_keys=True)
        if text == self._written:
            return
        new = self._path.with_suffix(".new")
        try:
            new.write_text(text, encoding="utf-8")
            new.replace(self._path)
        except OSError as error:
            if not self._failed:
                log.warning("the numbers of the workers are not kept: %s: %s", self._path, error.strerror or error)
            self._failed = True
            return
        self._written = text


def _read(path: Path) -> dict[str, Any]:
    try:
        roster = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # no file yet, or damaged
        return {}
    return roster if isinstance(roster, dict) else {}


def _named(entries: Any) -> Iterable[tuple[str, Identity]]:
    for name, who in entries.items() if isinstance(entries, dict) else ():
        try:
            identity = Identity(int(who["pid"]), str(who["boot_id"]), int(who["start_ticks"]))
        except (TypeError, KeyError, ValueError):
            continue
        if str(name).isdecimal():
            yield str(name), identity
