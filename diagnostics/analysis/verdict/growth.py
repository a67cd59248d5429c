"""Checks of in-use memory that grows by more than open streams explain: is it Python's objects, or somebody else's?

Three readings say whose it is, and none of them alone is sure: pymalloc counts small objects, Python's own counter tells how
many large blocks there are and not how large they are, and a census of objects adds up what Python knows of. So:

    retained_objects   what Python is seen to hold accounts for at least half of the growth; certain where a census shows one
                       type that does, and that type is named as the culprit
    native_growth      what Python is seen to hold accounts for at most a quarter; certain where a census says so and malloc
                       handed the rest out
    waiting_garbage    most of what grew is in cycles that the collector has not come to yet: no alarm
    memory_growth      it grows, and the readings do not decide: the capture that would is named

What accounts for less than half of the growth is never named as its cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..units import format_value
from .finding import Confidence, Finding
from .readings import LITTLE, MOST, Evidence, Readings, Rise

__all__ = ["garbage", "native", "retained", "undecided"]

# What is buffered is counted without its objects' own headers, the allocators' rounding and its place in a queue.
_OVERHEAD = 1.5
# Python's blocks above 512 bytes are counted and not measured. So large they are in services that hold text and lists: where
# as many blocks of this size would be most of the growth, it is likely theirs; where even blocks of the second size would
# not be, it is not.
_LIKELY_BLOCK, _LARGEST_BLOCK = 32 * 1024, 1024 * 1024


@dataclass(frozen=True)
class _Growth:
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
        found = self.readings.captures.get("objects") or {}
        return found if found.get("bytes_delta") is not None and found.get("seconds") else {}

    @property
    def expected(self) -> float:
        """What memory gained between the two looks of the census, at the slope of the trend."""
        slope = self.rise.trend.slope or 0.0
        return float(slope * self.census["seconds"]) * self.amount / max(1.0, self.rise.amount)

    @property
    def comparable(self) -> bool:
        """Whether memory grew between the two looks of the census as it does else, so that it should have seen the growth."""
        grown = self.census.get("in_use_delta")
        return grown is not None and self.expected / 2 <= grown <= 2 * self.expected

    @cached_property
    def seen(self) -> float | None:
        """The share of the growth that the census shows as Python's objects; None without one."""
        return self.census["bytes_delta"] / max(1.0, self.expected) if self.census else None

    @cached_property
    def grown(self) -> list[Mapping[str, Any]]:
        """The census's rows that grew, the largest first."""
        return [row for row in self.census.get("top") or () if (row.get("bytes_delta") or 0) > 0]

    @cached_property
    def waiting(self) -> float:
        """Of what grew, bytes in cycles that nothing reaches, by the samples that the census took of its largest types."""
        return float(sum(row["bytes_delta"] * _share(_ways(self.census, row), "cycle") for row in self.grown))

    @property
    def is_garbage(self) -> bool:
        return bool(self.grown) and self.waiting >= MOST * self.expected

    @property
    def in_python(self) -> bool | None:
        """Whether Python's objects account for most of it (True) or for little (False); None where nothing decides."""
        small = None if self.small is None else self.small / self.amount
        if small is not None and small >= MOST:
            return True
        if self.seen is not None and self.seen >= MOST:
            return True
        if self.seen is not None:
            return False if self.seen <= LITTLE and self.comparable else None
        if self.blocks is None or small is None:
            return None
        rest = self.amount * (MOST - small)
        if self.blocks * _LIKELY_BLOCK >= rest:
            return True
        return False if small <= LITTLE and self.blocks * _LARGEST_BLOCK < self.amount else None

    def evidence(self) -> list[Evidence]:
        found = [*self.rise.evidence("in use" if self.in_use else "RSS")]
        if self.small is not None:
            found.append(Evidence("of it in small Python objects", self.small, "bytes"))
        finished = self.readings.gained("streams_finished_total", self.seconds)
        if finished:
            found.append(Evidence("for each finished stream", self.amount / finished, "bytes"))
        if self.blocks is not None:
            found.append(Evidence("more large blocks of Python's", self.blocks, "count"))
        if self.census:
            words = f"more in Python objects within the {self.census['seconds']:g} s of the last objects capture"
            found.append(Evidence(words, self.census["bytes_delta"], "bytes"))
            found.append(Evidence("growth in such a time, at the slope above", self.expected, "bytes"))
        return found


def _growth(readings: Readings, *, garbage: bool = False) -> _Growth | None:
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
        if readings.mapped_elsewhere(rise.amount):
            return None
    buffered = sum(
        readings.gained(f"buffered_{layer}_bytes", rise.trend.seconds) or 0.0 for layer in ("app", "transport")
    )
    amount = rise.amount - _OVERHEAD * max(0.0, buffered)
    if amount < readings.least_growth or readings.explained_by_load(amount, rise.trend.seconds):
        return None
    found = _Growth(readings, rise, amount, in_use)
    return found if garbage or not found.is_garbage else None


def garbage(readings: Readings) -> Finding | None:
    """Objects in cycles that nothing reaches, and that the collector has not come to yet."""
    growth = _growth(readings, garbage=True)
    if growth is None or not growth.is_garbage:
        return None
    says = (
        f"Memory rises by {growth.text}, and most of what grew is garbage in cycles that waits for Python's collector: "
        "it is freed when that runs, and no leak unless it no longer runs."
    )
    found = Evidence("of what grew, in cycles that nothing reaches", growth.waiting, "bytes")
    return Finding("waiting_garbage", "medium", says, (*growth.evidence(), found))


def retained(readings: Readings) -> Finding | None:
    """Python's objects account for most of the growth."""
    growth = _growth(readings)
    if growth is None or growth.in_python is not True:
        return None
    says = f"Objects of Python's grow by {growth.text} beyond what open streams explain."
    if not growth.in_use:
        says = f"RSS grows by {growth.text} beyond what open streams explain, and Python's objects with it."
    evidence = growth.evidence()
    first = growth.grown[0] if growth.grown else None
    if first is None or first["bytes_delta"] < MOST * growth.expected:
        return Finding("retained_objects", "medium", says, tuple(evidence))
    name = str(first.get("type") or first.get("function"))
    evidence.append(Evidence(f"more in objects of type {name}, at the last capture", first["bytes_delta"], "bytes"))
    ways = _ways(growth.census, first)
    lost, way = _share(ways, "lost"), ways[0] if ways else None
    if way is None or lost >= MOST:
        confidence: Confidence = "medium"
        says += f" At the last capture most was {name}"
        says += f", {way['path']}." if way is not None else "."
        return Finding("retained_objects", confidence, says, tuple(evidence), culprit=name)
    sure = _share([way], None, ways) >= MOST and way.get("root") != "unknown"
    says += f" At the last capture most was {name}, kept alive by {way['path']}."
    return Finding(
        "retained_objects", "high" if sure else "medium", says, tuple(evidence), culprit=name, path=str(way["path"])
    )


def native(readings: Readings) -> Finding | None:
    """Python's objects account for little of the growth, or it is in mappings of neither allocator."""
    growth = _growth(readings)
    if growth is None:
        return _mapped(readings)
    if growth.in_python is not False:
        return None
    handed_out = readings.gained("malloc_live_bytes", growth.seconds)
    agree = growth.seen is not None and handed_out is not None and handed_out >= MOST * growth.amount
    why = (
        "Python's objects account for at most a quarter of it"
        if growth.census
        else "Python's own blocks do not explain it"
    )
    says = f"{'In-use memory' if growth.in_use else 'RSS'} grows by {growth.text}; {why}."
    evidence = growth.evidence()
    if handed_out is not None:
        evidence.append(Evidence("more handed out by malloc", handed_out, "bytes"))
    return Finding("native_growth", "high" if agree else "medium", says, tuple(evidence))


def undecided(readings: Readings) -> Finding | None:
    """It grows, and what is known does not tell whose it is."""
    growth = _growth(readings)
    if growth is None or growth.in_python is not None:
        return None
    if growth.seen is not None and growth.seen <= LITTLE:
        why = "the last objects capture shows little of it, but memory did not grow in its time as it does else"
    elif growth.seen is not None:
        why = f"Python's objects account for {growth.seen:.0%} of it, neither most nor little"
    elif growth.blocks is None:
        why = "Python's large blocks are not counted here, so that nothing tells whether it is Python's"
    else:
        why = "what is read without a capture does not tell whether it is Python's"
    what = "In-use memory" if growth.in_use else "RSS"
    return Finding("memory_growth", "medium", f"{what} grows by {growth.text}; {why}.", tuple(growth.evidence()))


def _mapped(readings: Readings) -> Finding | None:
    """RSS grows and neither allocator has handed out more: memory that was mapped behind their backs."""
    rise = readings.heavy_rise("rss_bytes")
    inside = readings.trend("in_use_bytes")
    if rise is None or inside is None or inside.state == "unknown" or not readings.mapped_elsewhere(rise.amount):
        return None
    evidence = (*rise.evidence("RSS"), Evidence("part other", readings.part("other") or 0, "bytes"))
    says = f"RSS grows by {format_value(round(rise.amount), 'bytes')} in mappings of neither allocator."
    return Finding("native_growth", "medium", says, evidence)


def _ways(census: Mapping[str, Any], row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list((census.get("paths") or {}).get(row.get("type") or row.get("function")) or ())


def _share(ways: list[Mapping[str, Any]], root: str | None, of: list[Mapping[str, Any]] | None = None) -> float:
    """The share of the samples (each stands for the same number of bytes) whose way begins so; None: of all these ways."""
    everything = sum(way["samples"] for way in (ways if of is None else of))
    meant = sum(way["samples"] for way in ways if root is None or way.get("root") == root)
    return meant / everything if everything else 0.0
