"""How workers ended: those of this monitor's life, and what an earlier one left in the black box of the same folder.

A process that the kernel kills takes its memory with it, and its successor looks well: what is asked first after an incident is
how the last one ended, what was said of it then, and in which file it is recorded.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...analysis.lines.growth import LineGrowth
from ...analysis.lines.lives import LineLife, gained
from .blackbox import BlackBox, Ending
from .line_record import line_life_beside

__all__ = ["Endings", "WorkerEnd"]

log = logging.getLogger("diagnostics.monitor")

_KEPT = 10
# An end that is longer ago than this is no news.
_NEWS_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """One end.

    verdict   what was last said of the worker, "" where nothing was
    path      its recording, None if in memory
    lines     those of its code that gained in its life, by its live heap
    """

    worker: str
    pid: int
    ending: Ending
    verdict: str
    path: Path | None
    lines: tuple[LineGrowth, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "worker": self.worker,
            "pid": self.pid,
            "time": self.ending.noticed,
            "said": self.ending.said,
            "oom": self.ending.out_of_memory,
            "returncode": self.ending.returncode,
            "verdict": self.verdict or None,
            "file": str(self.path) if self.path else None,
            "lines": [
                {key: row[key] for key in ("name", "in", "seconds", "grown_bytes")}
                for row in (line.to_json() for line in self.lines)
            ],
        }


class Endings:
    """All ends that are news; `blackbox` is asked once for those of before."""

    def __init__(self, blackbox: BlackBox | None) -> None:
        self._news: deque[WorkerEnd] = deque(maxlen=_KEPT)
        self._unexplained: dict[
            Path, WorkerEnd
        ] = {}  # whose exit status the parent has not reported yet, by their recordings
        self._ended: set[str] = set()
        self._restarts: Counter[str] = Counter()
        self._killed: Counter[str] = Counter()
        if blackbox is not None:
            self._news.extend(
                WorkerEnd(
                    str(process.get("worker")), int(process["pid"]), ending, said, path, _lines(line_life_beside(path))
                )
                for process, ending, said, path in blackbox.ends(_KEPT)
            )

    def add(
        self, worker: str, pid: int, ending: Ending, said: str, path: Path | None, life: LineLife | None = None
    ) -> None:
        """A worker has ended. An end that is no news, as that of one that is recycled, is counted only.

        life   what its lines of code gained; None where it is not known
        """
        self._ended.add(worker)
        self._killed[worker] += ending.out_of_memory
        end = WorkerEnd(worker, pid, ending, said, path, _lines(life))
        if ending.returncode is None and path is not None:
            self._unexplained[path] = end
            for forgotten in list(self._unexplained)[:-_KEPT]:
                del self._unexplained[forgotten]
        self._publish(end)

    def _publish(self, end: WorkerEnd) -> None:
        if not end.ending.quiet:
            self._news.append(end)
            self._log(end)

    def explain(self, path: Path, ending: Ending) -> str:
        """What the parent of a worker was told of its end, later than we saw it; returns what was said of the worker."""
        end = self._unexplained.pop(path, None)
        if end is None:
            return ""
        self._killed[end.worker] += ending.out_of_memory - end.ending.out_of_memory
        if end in self._news:
            self._news.remove(end)
        self._publish(replace(end, ending=ending))
        return end.verdict

    def begun(self, worker: str) -> None:
        """A process has this worker's number now."""
        if worker in self._ended:
            self._ended.discard(worker)
            self._restarts[worker] += 1

    def counted(self, worker: str) -> tuple[int, int]:
        """How often it was restarted, and killed for memory."""
        return self._restarts[worker], self._killed[worker]

    def last(self) -> list[WorkerEnd]:
        """Those that are news, the last first."""
        now = time.time()
        return [
            end for end in reversed(self._news) if not end.ending.quiet and now - end.ending.noticed < _NEWS_SECONDS
        ]

    def _log(self, end: WorkerEnd) -> None:
        # A process that ends by itself, with whatever exit code, has said why. One that was killed could not.
        if not (end.ending.out_of_memory or end.ending.by_signal):
            return
        said = f" Last verdict: {end.verdict}" if end.verdict else ""
        where = f" Recorded in {end.path}: diagnostics blackbox {end.path}" if end.path else ""
        log.warning("worker %s (pid %d) has ended. %s%s%s", end.worker, end.pid, end.ending.said, said, where)


def _lines(life: LineLife | None) -> tuple[LineGrowth, ...]:
    return () if life is None else gained(life)
