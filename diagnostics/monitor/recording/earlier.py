"""The lives of a worker's predecessors that an earlier monitor recorded in the same folder."""

from __future__ import annotations

from dataclasses import replace

from ...analysis.lives import Life
from ..kernel.process import Identity
from ..workers.lineage import LIVES, life_of
from .blackbox import BlackBox
from .line_record import line_life_beside
from .ring import Recording
from .vitals import JUDGED

__all__ = ["earlier_lives"]


def earlier_lives(blackbox: BlackBox, worker: str, parent: Identity) -> list[Life]:
    """Of the processes that had this worker's number and this parent, and have ended; the oldest first.

    Their recordings tell the series, and what is kept beside each of them, what its lines of code gained.
    """
    left = ((path, _life(recording)) for path, recording in blackbox.of_line(worker, parent, LIVES))
    return [replace(life, lines=line_life_beside(path)) for path, life in left if life is not None]


def _life(recording: Recording) -> Life | None:
    names = [name for name, _ in recording.header.fields]
    by_field = zip(*recording.rings[0].records, strict=True)
    columns = {name: list(column) for name, column in zip(names, by_field, strict=False)}
    return life_of(columns, recording.header.process.get("started"), JUDGED)
