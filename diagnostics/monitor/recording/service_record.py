"""What the recorder keeps of the service as a whole: its sums, once a second, in a file of fixed size.

`<root>/service.ring` has the shape of a worker's recording (ring.py). It goes on over the replacement of workers and over a
restart of the monitor, as long as the service's first process lives.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...analysis.trend import warm_up_ends
from ...errors import UsageError
from ..kernel.cgroup import CgroupReading
from ..kernel.process import Identity, identity
from ..workers.service_sum import ServiceLook
from .ring import Header, Recording, RingFile, RingSize

__all__ = ["WHOLE_FIELDS", "WholeRecord", "series_of_whole"]

log = logging.getLogger("diagnostics.monitor")

# (name, unit); bytes are sums over all processes, the cgroup's are its own.
WHOLE_FIELDS = (
    ("time", "seconds since the epoch"),
    ("processes", "count"),
    ("workers", "count"),
    ("rss_bytes", "bytes"),
    ("pss_bytes", "bytes"),
    ("private_bytes", "bytes"),
    ("cgroup_usage_bytes", "bytes"),
    ("cgroup_working_bytes", "bytes"),
    ("cgroup_limit_bytes", "bytes"),
    ("cgroup_tmpfs_bytes", "bytes"),
    ("cgroup_kernel_bytes", "bytes"),
    ("cgroup_socket_bytes", "bytes"),
)


class WholeRecord:
    """The recording; in memory only where `root` is None or the disk fails."""

    def __init__(self, root: Path | None, size: RingSize) -> None:
        self._path = root / "service.ring" if root is not None else None
        self._size = size
        self._file: RingFile | None = None

    def add(self, look: ServiceLook, cgroup: CgroupReading | None) -> None:
        """Write one record; the first one finds the file or makes it. A service without a process is not recorded."""
        if not look.members:
            return
        if self._file is None:
            oldest = _oldest(each.pid for each in look.members)
            if oldest is None:
                return
            self._file = self._open(*oldest)
        total = look.total
        record: dict[str, Any] = {
            "time": look.time,
            "processes": total.count,
            "workers": sum(each.role == "worker" for each in look.members),
            "rss_bytes": total.rss,
            "pss_bytes": total.pss if look.fresh else None,
            "private_bytes": total.private if look.fresh else None,
        }
        if cgroup is not None:
            record |= {
                "cgroup_usage_bytes": cgroup.usage_bytes,
                "cgroup_working_bytes": cgroup.working_bytes,
                "cgroup_limit_bytes": cgroup.limit_bytes,
                "cgroup_tmpfs_bytes": cgroup.tmpfs_bytes,
                "cgroup_kernel_bytes": cgroup.kernel_bytes,
                "cgroup_socket_bytes": cgroup.socket_bytes,
            }
        values = (record.get(name) for name, _ in WHOLE_FIELDS)
        self._file.append(0, [math.nan if value is None else float(value) for value in values])

    def read(self) -> Recording | None:
        """What was recorded; None before the first look."""
        return self._file.read() if self._file else None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, who: Identity, started: float) -> RingFile:
        header = Header(WHOLE_FIELDS, (self._size,), {**asdict(who), "started": started, "worker": None})
        if self._path is None:
            return RingFile.in_memory(header)
        try:
            file = RingFile.reopen(self._path)
            if file.header == header:
                return file
            file.close()
        except (UsageError, OSError):  # none yet, damaged, or another monitor's of the same folder
            pass
        try:
            self._path.unlink(missing_ok=True)
            return RingFile.create(self._path, header)
        except OSError as error:
            log.warning(
                "the service as a whole is recorded in memory only: %s: %s", self._path, error.strerror or error
            )
            return RingFile.in_memory(header)


def series_of_whole(recording: Recording | None) -> tuple[dict[str, list[tuple[float, float]]], float]:
    """The sums by their names, without what is not known, and the time at which the service's warm-up is over."""
    records = recording.rings[0].records if recording else ()
    if not recording or not records:
        return {}, -math.inf
    started = recording.header.process.get("started")
    first = float(started) if isinstance(started, int | float) else records[0][0]
    series = {
        name: [(record[0], record[at]) for record in records if not math.isnan(record[at])]
        for at, (name, _) in enumerate(recording.header.fields)
        if at
    }
    return series, warm_up_ends(first, records[-1][0])


def _oldest(pids: Iterable[int]) -> tuple[Identity, float] | None:
    identified = [each for pid in pids if (each := identity(pid)) is not None]
    return min(identified, key=lambda each: each[0].start_ticks, default=None)
