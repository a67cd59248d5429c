"""The folder of recordings: how files are named, which are kept, and what is said of a worker's end."""

from __future__ import annotations

import itertools
import logging
import os
import signal
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..protocol import private_folder
from .process import Identity
from .ring import Header, RingFile, RingSize
from .vitals import FIELDS

__all__ = ["BlackBox", "Ending"]

log = logging.getLogger("diagnostics.monitor")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker ended, as far as anyone could see.

    returncode       as a parent is told it: 0 and above an exit code, below zero the signal; None where nobody told us
    oom_kills        processes of its cgroup that the kernel killed for memory while the worker was recorded; None: unknown
    cgroup           the cgroup that was counted, None where there is none
    limit_bytes      its limit when it was last seen
    noticed          wall clock at which the monitor found the worker gone
    """

    noticed: float
    returncode: int | None
    oom_kills: int | None
    cgroup: str | None
    limit_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "said": self.said}

    @property
    def said(self) -> str:
        """One sentence for people."""
        if self.returncode is None:
            how = "It ended; its exit status is not known, since another process was its parent"
        elif self.returncode >= 0:
            how = f"It ended with exit code {self.returncode}"
        else:
            how = f"It was ended by {_signal_name(-self.returncode)}"
        if self.oom_kills:
            many = "a process" if self.oom_kills == 1 else f"{self.oom_kills} processes"
            how += f"; the kernel killed {many} of its cgroup for memory"
            how += (
                f" (limit {self.limit_bytes} bytes)"
                if self.limit_bytes is not None
                else " (no limit: the machine ran out)"
            )
        elif self.oom_kills == 0:
            how += "; the kernel killed nothing of its cgroup for memory"
        return f"{how}."


class BlackBox:
    """The folder `<root>/blackbox`. At most `keep` files stay when a new one is made."""

    def __init__(self, root: Path, keep: int) -> None:
        self.folder = root / "blackbox"
        private_folder(self.folder)
        self.keep = keep

    def open(self, who: Identity, started: float, worker: str, rings: tuple[RingSize, ...]) -> RingFile:
        """The recording of this process: the one that an earlier monitor began, or a new one; in memory if the disk fails."""
        process = {**asdict(who), "started": started, "worker": worker}
        header = Header(tuple((field.name, field.unit) for field in FIELDS), rings, process)
        try:
            return self._earlier(header) or self._new(header)
        except OSError as error:
            log.warning(
                "the recording of pid %d is kept in memory only, and ends with this monitor: %s: %s",
                who.pid, self.folder, error.strerror or error,
            )  # fmt: skip
            return RingFile.in_memory(header)

    def _earlier(self, header: Header) -> RingFile | None:
        for path in self.folder.glob(f"*-{header.process['pid']}*.ring"):
            try:
                found = RingFile.reopen(path)
            except (UsageError, OSError):
                continue  # damaged, or another monitor's: it stays as it is, for whoever reads it
            theirs, ours = found.header, header
            same = all(theirs.process.get(key) == ours.process[key] for key in ("pid", "boot_id", "start_ticks"))
            if same and (theirs.fields, theirs.rings) == (ours.fields, ours.rings):
                return found
            found.close()
        return None

    def _new(self, header: Header) -> RingFile:
        self._tidy()
        started = datetime.fromtimestamp(header.process["started"], UTC)
        stem = f"{started:%Y%m%dT%H%M%SZ}-{header.process['pid']}"
        for number in itertools.count():
            try:
                return RingFile.create(self.folder / (f"{stem}.{number}.ring" if number else f"{stem}.ring"), header)
            except FileExistsError:
                continue
        raise AssertionError("unreachable")

    def _tidy(self) -> None:
        """Make room for one more: the files that were written to longest ago go first."""
        files = sorted(self.folder.glob("*.ring"), key=os.path.getmtime)
        for path in files[: max(0, len(files) - self.keep + 1)]:
            path.unlink(missing_ok=True)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
