"""The limits on the disk, `rules.json` in the monitor's private folder: a restart does not begin them anew."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Final

from ...errors import DiagnosticsError
from ...protocol import private_folder
from .limits import Limits

__all__ = ["LimitsFile"]

log = logging.getLogger("diagnostics.monitor")

_NAME: Final = "rules.json"
_MAX_BYTES: Final = 16 * 1024 * 1024


class LimitsFile:
    """`root`: the monitor's folder."""

    def __init__(self, root: Path) -> None:
        self.path = root / _NAME
        self._failed = ""

    def load(self, now: float) -> Limits:
        """The limits as they were left; empty where there is no file, and, with a line in the log, where it is damaged."""
        try:
            with open(self.path, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return Limits()
        except OSError as error:
            return self._anew(error)
        try:
            return Limits.of_json(json.loads(data), now)
        except (ValueError, RecursionError) as error:
            return self._anew(error)

    def save(self, limits: Limits) -> None:
        """Replace the file as a whole. Never raises: a rule must act on a full disk, too; the failure is logged once."""
        written = self.path.with_name(f"{_NAME}.new")
        try:
            private_folder(self.path.parent)
            data = json.dumps(limits.to_json(), separators=(",", ":")).encode()
            descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb") as file:
                # Not synced: it must outlive this process, not the machine, and no rule may wait for a disk.
                file.write(data)
            written.replace(self.path)
            self._failed = ""
        except (OSError, DiagnosticsError) as error:
            self._not_kept(error)

    def _anew(self, error: Exception) -> Limits:
        log.error("the limits of rules in %s cannot be read, and begin anew: %s", self.path, error)
        return Limits()

    def _not_kept(self, error: Exception) -> None:
        if repr(error) != self._failed:
            self._failed = repr(error)
            log.error("the limits of rules cannot be kept in %s, and begin anew after a restart: %s", self.path, error)
