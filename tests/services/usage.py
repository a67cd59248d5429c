"""What a service takes: memory of its processes as the kernel counts it, CPU time over some seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """memory_bytes  resident anonymous memory: what is the processes' own, and not a file's. Pages that several share (after a
                 fork) are divided among them.
    cpu_percent   of one core
    """

    memory_bytes: int
    cpu_percent: float


def measure(pids: Iterable[int], seconds: float) -> Usage:
    """Waits `seconds`. Processes that come or go meanwhile do not count."""
    before, began = {pid: _cpu_seconds(pid) for pid in pids}, time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    used = sum(
        now - then for pid, then in before.items() if then is not None and (now := _cpu_seconds(pid)) is not None
    )
    return Usage(sum(anonymous(pid) for pid in before), 100 * used / passed)


def _cpu_seconds(pid: int) -> float | None:
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(words[11]) + int(words[12])) / _TICKS


def anonymous(pid: int) -> int:
    """Resident anonymous memory of one process in bytes; 0 where it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
