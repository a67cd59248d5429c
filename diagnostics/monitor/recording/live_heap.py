"""The tables of sampled heaps in `<root>/heap`: which one is a process's, read without asking it.

So they are read while the process is blocked, stopped, or gone. A table names its process by its number as the process
itself sees it, and by when it was started, in the kernel's count since the machine's boot, which is the same wherever
it is looked at from.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ...agent.heap import FOLDER
from ...analysis import heap
from ...errors import UsageError
from ..kernel.process import identity
from ..workers.targets import Worker

__all__ = ["of_process", "of_recording", "of_worker", "read"]

# An entry that was just being written is whole a microsecond later.
_TRIES = 3


def of_worker(worker: Worker) -> heap.HeapTable | None:
    """The table of a process that lives; None where it keeps none, or has lost its hooks and so tells no more what is alive."""
    if worker.socket is None:
        return None
    root = worker.socket.parent.parent
    known = identity(worker.pid)
    table = _find(root, worker.socket.stem, known[0].start_ticks if known else None)
    return None if table is None or table.lost else table


def of_process(root: Path, start_ticks: int) -> tuple[Path, heap.HeapTable] | None:
    """The table that a process which was started then has left below `root`."""
    return _started(root / FOLDER, start_ticks)


def of_recording(recording: Path, start_ticks: int) -> tuple[Path, heap.HeapTable] | None:
    """The table of the process of a recording: below the same root, or beside it where both were fetched from a store."""
    folder = recording.absolute().parent
    return of_process(folder.parent, start_ticks) or _started(folder, start_ticks)


def _started(folder: Path, start_ticks: int) -> tuple[Path, heap.HeapTable] | None:
    for path in _newest(folder, ".heap"):
        with contextlib.suppress(UsageError, OSError):
            with open(path, "rb") as file:
                known = heap.process_of(file.read(heap.HEADER_BYTES))
            if known and known[1] == start_ticks:
                return path, read(path)
    return None


def read(path: Path) -> heap.HeapTable:
    """Raises UsageError where it is no table, OSError where it cannot be read."""
    if path.stat().st_size > heap.MAX_BYTES:
        raise UsageError(f"{path} is larger than any table of a live heap")
    table = heap.decode(path.read_bytes())
    for _ in range(_TRIES):
        if not table.torn:
            break
        table = heap.decode(path.read_bytes())
    return table


def _find(root: Path, pid: str, start_ticks: int | None) -> heap.HeapTable | None:
    for path in _newest(root / FOLDER, f"-{pid}.heap"):
        with contextlib.suppress(UsageError, OSError):  # being made, removed meanwhile, another version's
            table = read(path)
            # The number may be another process's by now.
            if start_ticks is None or table.start_ticks in (0, start_ticks):
                return table
    return None


def _newest(folder: Path, ending: str) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted((path for path in folder.iterdir() if path.name.endswith(ending)), reverse=True)
    return []
