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

from .blackbox import BlackBox, Ending

__all__ = ["Endings", "Told"]

log = logging.getLogger("diagnostics.monitor")

_KEPT = 10
# An end that is longer ago than this is no news.
_NEWS_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Told:
    """One end. `verdict` is what was last said of the worker, "" where nothing was; `path` its recording, None if in memory."""

    worker: str
    pid: int
    ending: Ending
    verdict: str
    path: Path | None

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
        }


class Endings:
    """All ends that are news; `blackbox` is asked once for those of before."""

    def __init__(self, blackbox: BlackBox | None) -> None:
        self._told: deque[Told] = deque(maxlen=_KEPT)
        self._unexplained: dict[Path, Told] = {}  # of which the parent has not told yet, by their recordings
        self._ended: set[str] = set()
        self._restarts: Counter[str] = Counter()
        self._killed: Counter[str] = Counter()
        if blackbox is not None:
            self._told.extend(
                Told(str(process.get("worker")), int(process["pid"]), ending, said, path)
                for process, ending, said, path in blackbox.ends(_KEPT)
            )

    def add(self, worker: str, pid: int, ending: Ending, said: str, path: Path | None) -> None:
        """A worker has ended. An end that is no news, as that of one that is recycled, is counted only."""
        self._ended.add(worker)
        self._killed[worker] += ending.out_of_memory
        told = Told(worker, pid, ending, said, path)
        if ending.returncode is None and path is not None:
            self._unexplained[path] = told
            for forgotten in list(self._unexplained)[:-_KEPT]:
                del self._unexplained[forgotten]
        self._tell(told)

    def _tell(self, told: Told) -> None:
        if not told.ending.quiet:
            self._told.append(told)
            self._log(told)

    def explain(self, path: Path, ending: Ending) -> str:
        """What the parent of a worker was told of its end, later than we saw it; returns what was said of the worker."""
        told = self._unexplained.pop(path, None)
        if told is None:
            return ""
        self._killed[told.worker] += ending.out_of_memory - told.ending.out_of_memory
        if told in self._told:
            self._told.remove(told)
        self._tell(replace(told, ending=ending))
        return told.verdict

    def begun(self, worker: str) -> None:
        """A process has this worker's number now."""
        if worker in self._ended:
            self._ended.discard(worker)
            self._restarts[worker] += 1

    def counted(self, worker: str) -> tuple[int, int]:
        """How often it was restarted, and killed for memory."""
        return self._restarts[worker], self._killed[worker]

    def last(self) -> list[Told]:
        """Those that are news, the last first."""
        now = time.time()
        return [
            told for told in reversed(self._told) if not told.ending.quiet and now - told.ending.noticed < _NEWS_SECONDS
        ]

    def _log(self, told: Told) -> None:
        # A process that ends by itself, with whatever exit code, has said why. One that was killed could not.
        if not (told.ending.out_of_memory or told.ending.by_signal):
            return
        said = f" Last verdict: {told.verdict}" if told.verdict else ""
        where = f" Recorded in {told.path}: diagnostics blackbox {told.path}" if told.path else ""
        log.warning("worker %s (pid %d) has ended. %s%s%s", told.worker, told.pid, told.ending.said, said, where)
