"""Growth of memory that open streams do not explain, and whose it is by all readings that tell.

Three readings say whether it is Python's, and none of them alone is sure: pymalloc counts small blocks, Python's own counter
tells how many large ones there are and not how large they are, and an objects capture adds up what Python's containers hold and
what lies in small blocks without a holder. What such a capture shows is set against what memory gained in the capture's own
time; the slope of the trend stands in where that is not known, or where nothing grew meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...drift import drift
from ...units import format_value
from ..readings import LITTLE, MOST, Evidence, Readings, Rise
from .holder import share, ways_of
from .open_streams import HeldByStreams, held_by_streams

__all__ = ["UnexplainedGrowth", "growth"]

# Python's blocks above 512 bytes are counted and not measured. So large they are in services that hold text and lists: where
# as many blocks of this size would be most of the growth, it is likely theirs; where even blocks of the second size would
# not be, it is not.
_LIKELY_BLOCK, _LARGEST_BLOCK = 32 * 1024, 1024 * 1024
# How ways begin that lead through gc.garbage.
_SAVED = "module gc -> "


@dataclass(frozen=True)
class UnexplainedGrowth:
    """Growth that streams do not explain. `amount` in bytes, `seconds` judged, `in_use`: of what is in use, or only of RSS."""

    readings: Readings
    rise: Rise
    amount: float
    in_use: bool

    @property
    def seconds(self) -> float:
        return self.rise.trend.seconds

    @property
    def text(self) -> str:
        return format_value(round(self.amount), "bytes")

    @cached_property
    def small(self) -> float | None:
        return self.readings.gained("python_live_bytes", self.seconds)

    @cached_property
    def blocks(self) -> float | None:
        return self.readings.gained("python_large_blocks", self.seconds)

    @cached_property
    def census(self) -> Mapping[str, Any]:
        """The last objects capture that compared two moments; empty where there is none."""
        capture = self.readings.captures.get("objects") or {}
        return capture if capture.get("bytes_delta") is not None and capture.get("seconds") else {}

    @property
    def per_second(self) -> float:
        """Bytes a second that memory gains beyond what streams explain, at the slope of the trend."""
        return (self.rise.trend.slope or 0.0) * self.amount / max(1.0, self.rise.amount)

    @property
    def expected(self) -> float:
        """What memory gains between two looks as far apart as those of the census, at that pace."""
        return float(self.per_second * self.apart)

    @property
    def apart(self) -> float:
        """Seconds between the two looks of the census; a busy machine takes longer to count than it was to wait."""
        return float(self.census.get("elapsed") or self.census["seconds"])

    @property
    def by_pythons_allocators(self) -> bool:
        """Whether most of it is in blocks that Python's allocators handed out, be it to an object or to C code."""
        blocks = (self.blocks or 0.0) * _LIKELY_BLOCK
        return (self.small or 0.0) + blocks >= MOST * self.amount

    @property
    def comparable(self) -> bool:
        """Whether memory is known to have grown between the two looks of the census, so that it should have seen the growth."""
        return self.census.get("in_use_delta") is not None and not self.paused

    @property
    def basis(self) -> float:
        """What an object that accounts for the growth must have gained between the two looks of the census.

        What memory gained then is the difference of two single readings, and garbage comes and goes between them; the slope is
        of a hundred. The smaller of both counts, unless they differ by more than noise does.
        """
        if not self.comparable:
            return max(1.0, self.expected)
        gained = float(self.census["in_use_delta"])
        return max(1.0, min(gained, max(self.expected, MOST * gained)))

    @property
    def paused(self) -> bool:
        """Whether memory hardly grew between the two looks of the last census: a service that has only just loaded looks so."""
        gained = self.census.get("in_use_delta")
        return gained is not None and gained < LITTLE * self.expected

    @cached_property
    def slowed(self) -> bool:
        """Whether it is sure that memory has grown, since the last census, at less than half the pace that it had then: what
        grew then grows so no longer, and what grows now may be something else."""
        taken, gained = self.census.get("time"), self.census.get("in_use_delta")
        if taken is None or gained is None:
            return False
        since = drift(self.readings.series.get("in_use_bytes", ()), since=float(taken))
        return since is not None and since.high < MOST * gained / self.apart

    @cached_property
    def seen(self) -> float | None:
        """The share of the growth that the census shows as Python's objects, held or not; None without one."""
        if not self.census:
            return None
        unheld = sum(row["bytes_delta"] for row in self.census.get("hidden") or ())
        return float((self.census["bytes_delta"] + unheld + self.of_threads) / self.basis)

    @property
    def of_threads(self) -> float:
        """What other threads' own data gained between the looks of the census, which its forked child cannot see."""
        return max(0.0, float(self.census.get("freed_delta") or 0.0))

    @property
    def _uncertain(self) -> float:
        """By so much of the growth `seen` may be off: a census of a large service looks at a sample of its objects."""
        return float(self.census.get("margin_bytes") or 0.0) / self.basis

    @property
    def sees_most(self) -> bool:
        """Whether the census is sure to show most of the growth as Python's objects."""
        return self.seen is not None and self.seen - self._uncertain >= MOST

    @property
    def sees_little(self) -> bool:
        """Whether the census is sure to show little of the growth as Python's objects."""
        return self.seen is not None and self.seen + self._uncertain <= LITTLE

    @cached_property
    def grown(self) -> list[Mapping[str, Any]]:
        """The census's rows that grew, the largest first; those that no container holds have `unheld`."""
        return [row for row in self.census.get("top") or () if (row.get("bytes_delta") or 0) > 0]

    @property
    def in_no_object(self) -> bool:
        """Whether the census tells that little of it is in objects, those in small blocks without a holder included."""
        tells = self.census.get("hidden") is not None and self.comparable
        return tells and self.sees_little

    @cached_property
    def waiting(self) -> float:
        """Of what grew, bytes in cycles that nothing reaches, by the samples that the census took of its largest types."""
        rows = [row for row in self.grown if not row.get("unheld")]
        return float(sum(row["bytes_delta"] * share(ways_of(self.census, row), "cycle") for row in rows))

    @cached_property
    def saved(self) -> float:
        """Of what grew, bytes in gc.garbage, where the collector keeps there what it finds; by the same samples."""
        if self.readings.saved is None:
            return 0.0
        rows = ((row, ways_of(self.census, row)) for row in self.grown if not row.get("unheld"))
        of_each = ((row, [way for way in ways if str(way["path"]).startswith(_SAVED)], ways) for row, ways in rows)
        return float(sum(row["bytes_delta"] * share(saved, None, ways) for row, saved, ways in of_each))

    @cached_property
    def of_streams(self) -> HeldByStreams:
        """What open streams alone keep alive of what grew."""
        return held_by_streams(self.census, self.grown)

    @property
    def is_of_streams(self) -> bool:
        """Whether that is most of what grew, and memory did grow in the census's time."""
        return bool(self.census) and not self.paused and self.of_streams.bytes >= MOST * self.basis

    @property
    def is_garbage(self) -> bool:
        return bool(self.grown) and self.waiting + self.saved >= MOST * self.basis

    @property
    def in_python(self) -> bool | None:
        """Whether Python's objects account for most of it (True) or for little (False); None where nothing decides."""
        small = None if self.small is None else self.small / self.amount
        if small is not None and small >= MOST and not self.in_no_object:
            return True
        if self.sees_most:
            return True
        if self.seen is not None:
            return False if self.sees_little and self.comparable else None
        if self.blocks is None or small is None:
            return None
        rest = self.amount * (MOST - small)
        if self.blocks * _LIKELY_BLOCK >= rest:
            return True
        return False if small <= LITTLE and self.blocks * _LARGEST_BLOCK < self.amount else None

    def evidence(self) -> list[Evidence]:
        evidence = [*self.rise.evidence("in use" if self.in_use else "RSS")]
        if self.small is not None:
            evidence.append(Evidence("of it in small Python objects", self.small, "bytes"))
        finished = self.readings.gained("streams_finished_total", self.seconds)
        if finished:
            evidence.append(Evidence("for each finished stream", self.amount / finished, "bytes"))
        if self.blocks is not None:
            evidence.append(Evidence("more large blocks of Python's", self.blocks, "count"))
        if self.census:
            words = f"more in Python objects within the {self.census['seconds']:g} s of the last objects capture"
            evidence.append(Evidence(words, self.census["bytes_delta"], "bytes"))
            evidence.append(Evidence("growth in such a time, at the slope above", self.expected, "bytes"))
        return evidence


def growth(readings: Readings, *, garbage: bool = False) -> UnexplainedGrowth | None:
    """In-use memory that grows beyond what streams hold; RSS where in-use memory varies too much to tell.

    garbage   also where it is garbage that waits for the collector, which is no leak of anything
    """
    rise, in_use = readings.heavy_rise("in_use_bytes"), True
    if rise is None:
        rise, in_use = readings.heavy_rise("rss_bytes"), False
        inside = readings.bounded("in_use_bytes")
        # RSS grows: by what is in use only if that may grow as fast.
        if rise is None or inside is None or inside.high < MOST * (rise.trend.slope or 0.0):
            return None
        if readings.mapped_elsewhere(rise.amount) or readings.mapped_to_files(rise):
            return None
    amount = readings.beyond_buffers(rise)
    if amount < readings.least_growth or readings.explained_by_load(amount, rise.trend.seconds):
        return None
    grown = UnexplainedGrowth(readings, rise, amount, in_use)
    return grown if garbage or not grown.is_garbage else None
