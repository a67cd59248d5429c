"""What each child process of a worker took over time, so that the one that grows can be named.

The recorder keeps the sum over a worker's children in the worker's own file. This is beside it, in memory: a few hundred
readings of each of the largest children. Children that end are forgotten; they no longer take anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...analysis.verdict.child import Child
from ..kernel.commands import shown_command
from ..workers.processes import Member
from ..workers.service_sum import ServiceLook

__all__ = ["Offspring"]

# An hour at one reading in five looks: the longest window of a verdict.
_EVERY_LOOKS, _KEPT = 5, 720
# A pool of a thousand processes is followed by those that take most.
_FOLLOWED = 64


@dataclass
class _ChildTrack:
    command: str
    rss: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    pss: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def add(self, look: ServiceLook, member: Member) -> None:
        self.rss.append((look.time, float(member.rss)))
        if look.fresh and member.rollup is not None:
            self.pss.append((look.time, float(member.rollup.pss)))


class Offspring:
    """The children of all workers."""

    def __init__(self) -> None:
        self._tracks: dict[str, dict[int, _ChildTrack]] = {}
        self._looks = 0

    def saw(self, look: ServiceLook, workers: Sequence[str]) -> None:
        """Keep this look's readings of the children of these workers; one look in five is kept."""
        self._looks += 1
        if self._looks % _EVERY_LOOKS != 1:
            return
        self._tracks = {worker: self._of(look, worker) for worker in workers}

    def of(self, worker: str) -> tuple[Child, ...]:
        """The children of a worker that are there now, each with its readings in order of time."""
        tracks: Mapping[int, _ChildTrack] = self._tracks.get(worker, {})
        return tuple(Child(pid, track.command, list(track.rss), list(track.pss)) for pid, track in tracks.items())

    def _of(self, look: ServiceLook, worker: str) -> dict[int, _ChildTrack]:
        known = self._tracks.get(worker, {})
        members = [each for each in look.members if each.role == "child" and each.worker == worker]
        tracks: dict[int, _ChildTrack] = {}
        for member in sorted(members, key=lambda each: -each.rss)[:_FOLLOWED]:
            track = tracks[member.pid] = known.get(member.pid) or _ChildTrack(
                shown_command(member.pid) or member.program
            )
            track.add(look, member)
        return tracks
