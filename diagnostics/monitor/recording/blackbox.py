"""The folder of recordings: how files are named, which are kept, and what is said of a worker's end.

Which are kept: of workers that ended quietly, as recycled ones do, the last few of each number; beyond that, as many files as
there is room for. The last of each number goes last, and the file of a worker that lives never.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...errors import RefusedError, UsageError
from ...protocol import private_folder
from ..kernel.process import Identity
from .line_record import line_life_file, lines_file
from .ring import Header, Recording, RingFile, RingSize, decode, peek
from .vitals import FIELDS

__all__ = ["BlackBox", "Ending"]

log = logging.getLogger("diagnostics.monitor")

# A worker that is recycled every minute would leave nothing else in the folder.
_QUIET_OF_A_NUMBER = 3
# Of its limit: a reading is up to a second old when the kernel kills.
_NEAR = 0.8


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker ended, as far as anyone could see.

    returncode       as a parent gets it: 0 and above an exit code, below zero the signal; None where no parent reported it
    oom_kills        processes of its cgroup that the kernel killed for memory while the worker was recorded; None: unknown
    cgroup           the cgroup that was counted, None where none could be seen
    limit_bytes      its limit when it was last seen; used_bytes: what was charged for it then, without page cache that can go
    noticed          wall clock at which the monitor found the worker gone
    """

    noticed: float
    returncode: int | None
    oom_kills: int | None
    cgroup: str | None
    limit_bytes: int | None
    used_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "said": self.said}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Ending:
        """As written by `to_json`; what is missing is not known."""
        return cls(
            float(fields["noticed"]),
            *(fields.get(each) for each in ("returncode", "oom_kills", "cgroup", "limit_bytes", "used_bytes")),
        )

    @property
    def out_of_memory(self) -> bool:
        """Whether it is the one that the kernel killed for memory, as far as that can be told from outside."""
        return bool(self.oom_kills) and self.returncode in (None, -signal.SIGKILL, 128 + signal.SIGKILL)

    @property
    def _near_limit(self) -> bool:
        if self.limit_bytes is None or self.used_bytes is None:
            return False
        return self.used_bytes >= _NEAR * self.limit_bytes

    @property
    def quiet(self) -> bool:
        """An end as that of a worker that is recycled or asked to stop: it is no news."""
        if self.oom_kills is None and self.returncode is None and self._near_limit:
            return False  # a container that is killed takes its cgroup, and with it the count, away
        return not self.oom_kills and self.returncode in (
            None,
            0,
            -signal.SIGTERM,
            -signal.SIGINT,
            128 + signal.SIGTERM,
            128 + signal.SIGINT,  # with this many servers exit after Ctrl-C
        )

    @property
    def by_signal(self) -> bool:
        """Whether a signal ended it, or a shell that it was started by says so."""
        return self.returncode is not None and (self.returncode < 0 or self.returncode > 128)

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
        elif self.returncode == -signal.SIGKILL or (self.returncode is None and self._near_limit):
            why = "its cgroup could not be seen" if self.cgroup is None else "its cgroup is gone with it"
            how += f"; whether the kernel killed it for memory is unknown: {why}"
            if self.limit_bytes and self.used_bytes is not None:
                how += f", and had {self.used_bytes} bytes in use of {self.limit_bytes} when it was last seen"
        return f"{how}."


class BlackBox:
    """The folder `<root>/blackbox`. At most `keep` files stay when a new one is made."""

    def __init__(self, root: Path, keep: int) -> None:
        self.root = root
        self.folder = root / "blackbox"
        private_folder(self.folder)
        self.keep = keep

    def open(
        self,
        who: Identity,
        started: float,
        worker: str,
        rings: tuple[RingSize, ...],
        parent: Identity | None = None,
    ) -> RingFile:
        """The recording of this process: the one that an earlier monitor began, or a new one; in memory if the disk fails."""
        process = {
            **asdict(who), "started": started, "worker": worker, "parent": asdict(parent) if parent else None
        }  # fmt: skip
        header = Header(tuple((field.name, field.unit) for field in FIELDS), rings, process)
        try:
            private_folder(self.folder)  # others tidy, too
            return self._earlier(header) or self._new(header)
        except (OSError, RefusedError) as error:
            log.warning(
                "the recording of pid %d is kept in memory only, and ends with this monitor: %s: %s",
                who.pid, self.folder, error,
            )  # fmt: skip
            return RingFile.in_memory(header)

    def _earlier(self, header: Header) -> RingFile | None:
        for path in self.folder.glob(f"*-{header.process['pid']}*.ring"):
            try:
                file = RingFile.reopen(path)
            except (UsageError, OSError):
                continue  # damaged, or another monitor's: it stays as it is, for whoever reads it
            theirs, ours = file.header, header
            same = all(theirs.process.get(key) == ours.process[key] for key in ("pid", "boot_id", "start_ticks"))
            if same and (theirs.fields, theirs.rings) == (ours.fields, ours.rings):
                return file
            file.close()
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

    def of_line(self, worker: str, parent: Identity, count: int) -> list[tuple[Path, Recording]]:
        """The last `count` recordings of this number that have ended and had this parent, the oldest first."""
        recordings: list[tuple[Path, Recording]] = []
        for path in self._newest_first():
            if len(recordings) == count:
                break
            with contextlib.suppress(UsageError, OSError):
                header, end = peek(path)
                if end is not None and (header.process.get("worker"), header.process.get("parent")) == (
                    worker, asdict(parent)
                ):  # fmt: skip
                    recordings.insert(0, (path, decode(path.read_bytes())))
        return recordings

    def ends(self, count: int) -> list[tuple[dict[str, Any], Ending, str, Path]]:
        """(process, end, last verdict, file) of the last `count` recordings that have an end, the oldest first."""
        ends: list[tuple[dict[str, Any], Ending, str, Path]] = []
        for path in self._newest_first()[: 4 * count]:
            with contextlib.suppress(UsageError, OSError):  # damaged, or removed meanwhile
                header, end = peek(path)
                if end is not None and len(ends) < count and isinstance(end.get("noticed"), int | float):
                    ends.insert(0, (dict(header.process), Ending.from_json(end), str(end.get("verdict") or ""), path))
        return ends

    def _newest_first(self) -> list[Path]:
        dated: list[tuple[float, Path]] = []
        for path in self.folder.glob("*.ring"):
            with contextlib.suppress(OSError):  # removed meanwhile
                dated.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(dated, reverse=True)]

    def _tidy(self) -> None:
        """Make room for one more."""
        last: set[str] = set()
        quiet: dict[str, int] = {}
        rest: list[Path] = []
        lasts: list[Path] = []
        for path in self._newest_first():
            number, quietly = _number_and_end(path)
            if number is not None and quietly:
                quiet[number] = quiet.get(number, 0) + 1
                if quiet[number] > _QUIET_OF_A_NUMBER:
                    _remove(path)
                    continue
            (rest if number is None or number in last else lasts).append(path)
            if number is not None:
                last.add(number)
        spare = len(rest) + len(lasts) - self.keep + 1
        for path in [*reversed(rest), *reversed(lasts)]:
            if spare <= 0:
                break
            if not _is_written(path):
                _remove(path)
                spare -= 1


def _remove(path: Path) -> None:
    """A recording, and what is kept beside it of the lines of its worker's live heap."""
    for each in (path, lines_file(path), line_life_file(path)):
        each.unlink(missing_ok=True)


def _number_and_end(path: Path) -> tuple[str | None, bool]:
    """The worker's number in a recording, None where it does not check, and whether it ended quietly."""
    try:
        header, end = peek(path)
    except (UsageError, OSError):
        return None, False
    quietly = end is not None and not end.get("oom_kills") and end.get("returncode") in (None, 0, -signal.SIGTERM)
    return str(header.process.get("worker")), quietly


def _is_written(path: Path) -> bool:
    """Whether a monitor has it open: its worker lives."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # removed meanwhile
        return False
    return False


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
