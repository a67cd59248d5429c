"""Small objects of Python's that may be what has memory in C: a compressor, a connection to a database, a parser.

Their own sizes say nothing of that memory. But where it grows because they are kept, their number grows with it: each has then
the same share of it. That is a candidate and no proof, and is told as such: with what keeps them alive, how many more there
are, and how many bytes each of them would have, with an interval. Objects that nothing keeps, as those of connections that have
ended and wait for the collector, are no candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ...units import format_value
from ..finding import Finding
from ..readings import MOST, Evidence
from .beyond import UnexplainedGrowth
from .holder import share, ways_of

__all__ = ["Handle", "handles_of", "with_handles"]

# Less than this beside an object is no memory of a library's.
_LEAST_EACH: Final = 256.0
# Roots that keep nothing alive.
_NO_HOLDER: Final = frozenset({"unknown", "cycle", "lost"})


@dataclass(frozen=True, slots=True)
class Handle:
    """A type of which `count` more came within `seconds`, between the two looks of a census.

    each   bytes that one of them would have, if all of the growth were theirs: low, middle, high (95 % sure)
    path   what keeps at least half of them alive
    """

    type: str
    count: int
    each: tuple[float, float, float]
    seconds: float
    path: str

    @property
    def says(self) -> str:
        low, middle, high = (format_value(round(value), "bytes") for value in self.each)
        return (
            f"It may be memory of {self.type}, which C code has beside each object: {self.count:,} more came within "
            f"{self.seconds:.0f} s, kept alive by {self.path}; each would have {middle} (95 % sure: {low} to {high})."
        )


def handles_of(grown: UnexplainedGrowth) -> list[Handle]:
    """The candidates, the most numerous first; those of which less than half as many came are none."""
    rows = [row for row in grown.census.get("handles") or () if row["count_delta"] > 0]
    trend = grown.rise.trend
    if not rows or trend.slope is None or trend.low is None or trend.high is None:
        return []
    most = max(row["count_delta"] for row in rows)
    seconds, beyond = grown.apart, grown.amount / max(1.0, grown.rise.amount)
    handles = []
    for row in rows:
        count = int(row["count_delta"])
        low, middle, high = (
            max(0.0, slope * beyond * seconds / count) for slope in (trend.low, trend.slope, trend.high)
        )
        if count < MOST * most or middle < _LEAST_EACH:
            continue
        ways = ways_of(grown.census, row)
        held = [way for way in ways if way.get("root") not in _NO_HOLDER]
        if held and share(held, None, ways) >= MOST:
            handles.append(Handle(str(row["type"]), count, (low, middle, high), seconds, str(held[0]["path"])))
    return handles


def with_handles(grown: UnexplainedGrowth, finding: Finding) -> Finding:
    """With the types whose number grew and whose objects may be what has it: a candidate, which no reading proves."""
    handles = handles_of(grown)
    if not handles:
        return finding
    evidence = [Evidence(f"more {each.type}, at the last capture", each.count, "count") for each in handles]
    says = f"{finding.says} {' '.join(each.says for each in handles)}"
    return replace(finding, says=says, evidence=(*finding.evidence, *evidence), path=handles[0].path)
