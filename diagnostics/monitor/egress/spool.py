"""The queue's file, `<root>/egress/queue.json`: what waits and what was sent survives the monitor, however it ends.

Replaced as a whole, never written in place: after a SIGKILL it is the one of before or the one of after. A file that cannot be
read is put aside and named in the log; then everything that the local store has is sent again, which gives the same files under
the same names.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...protocol import private_folder

__all__ = ["Spool", "Spooled"]

log = logging.getLogger("diagnostics.monitor")

_SCHEMA = "highwater.egress.queue/1"
_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Spooled:
    """What was left. `since`: what was finished before egress was first switched on is not sent; wall clock."""

    since: float
    uploads: list[Any] = field(default_factory=list)
    day: int = 0
    used: int = 0


class Spool:
    """The file in `<root>/egress`, a folder for its owner only."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "egress"
        self._path = self._folder / "queue.json"
        private_folder(self._folder)

    def load(self, now: float) -> Spooled:
        """What an earlier monitor left; nothing, beginning `now`, where there was none."""
        try:
            if self._path.stat().st_size > _MAX_BYTES:
                raise ValueError(f"it has more than {_MAX_BYTES} bytes")
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            if not isinstance(kept, dict) or kept.get("schema") != _SCHEMA:
                raise ValueError("it is not what this version writes")
            return Spooled(float(kept["since"]), list(kept["uploads"]), int(kept["day"]), int(kept["used"]))
        except FileNotFoundError:
            return Spooled(now)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            return self.put_aside(error)

    def put_aside(self, error: Exception) -> Spooled:
        """Call the file damaged, and begin anew with everything that is kept."""
        aside = self._path.with_suffix(".damaged")
        self._path.replace(aside)
        log.error(
            "egress: the queue could not be read (%s): it is %s now, and what is kept is sent again", error, aside
        )
        return Spooled(0.0)

    def save(self, since: float, uploads: list[Any], day: int, used: int) -> None:
        """Replace the file. Raises OSError, RefusedError."""
        private_folder(self._folder)  # others tidy, too
        kept = {"schema": _SCHEMA, "since": since, "day": day, "used": used, "uploads": uploads}
        partial = self._path.with_suffix(".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
