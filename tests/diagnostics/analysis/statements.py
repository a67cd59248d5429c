"""How often a verdict's "does not grow" is wrong: simulated readings of a known slope, judged as those of a live service.

A statement is wrong where the true slope lies above the bound that it tells. All series of a service get the same noise, so
that no other series takes a wrong statement back. tests/bench/bench_no_growth.py has the table, docs/verdict.md shows it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from series import NOISES

from diagnostics.analysis.drift import drift
from diagnostics.analysis.verdict.readings import MIB, Readings
from diagnostics.analysis.verdict.service import Told, verdict_on_whole
from diagnostics.analysis.verdict.verdict import Verdict, verdict

__all__ = ["STATEMENTS", "TRUTHS", "Outcome", "simulate"]

_RSS: Final = 400 * MIB
# A tenth of what is resident, in an hour: what matters to this service.
MATTERS: Final = 0.1 * _RSS / 3600
# True slopes, in units of what matters; the last two matter.
TRUTHS: Final = (0.0, 0.5, 0.9, 1.1, 2.0)
# Noise so wide that the median interval reaches so far beyond its middle, in units of what matters.
_REACHES: Final = (0.25, 1.0)
_LOAD_A_STREAM: Final = 256 * 1024

Points = list[tuple[float, float]]


@dataclass
class Outcome:
    """Of `asked` verdicts so many said that memory does not grow, and so many of these were wrong."""

    asked: int = 0
    said: int = 0
    wrong: int = 0

    def add(self, said: bool, wrong: bool) -> None:
        self.asked += 1
        self.said += said
        self.wrong += wrong

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.asked + other.asked, self.said + other.said, self.wrong + other.wrong)

    @property
    def held(self) -> float:
        """The share of all verdicts asked for that told no bound which memory exceeded."""
        return 1 - self.wrong / self.asked


def _worker(points: Points, slope: float) -> tuple[bool, bool]:
    """A worker that is not seen to grow, told with its bound: (was it said, was it wrong)."""
    series = dict.fromkeys(("in_use_bytes", "rss_bytes", "private_bytes"), points)
    readings = _readings(series)
    if not _said(verdict(readings), "does not grow"):
        return False, False
    most = max(bound.high for name in series if (bound := readings.bounded(name)) is not None)
    return True, slope > max(0.0, most)


def _whole(points: Points, slope: float) -> tuple[bool, bool]:
    """All processes together."""
    calm = {"0": Told("load_only", "high"), "1": Told("load_only", "high")}
    told = verdict_on_whole({"pss_bytes": points}, 0.0, processes=3, rss=_RSS, workers=calm, unknown={})
    if not _said(told, "do not grow"):
        return False, False
    bound = _readings({"pss_bytes": points}).bounded("pss_bytes")
    assert bound is not None
    return True, slope > max(0.0, bound.high)


def _streams(points: Points, slope: float) -> tuple[bool, bool]:
    """What memory gains beside streams that are opened: they take what the slope `MATTERS` gains, and no more."""
    seconds = points[-1][0] - points[0][0]
    # `gained` sees three quarters of the time, from the middle of the first quarter to that of the last.
    opened = MATTERS * seconds / _LOAD_A_STREAM / 0.75
    streams = [(time, 10 + opened * (time - points[0][0]) / seconds) for time, _ in points]
    series = dict.fromkeys(("in_use_bytes", "rss_bytes", "private_bytes"), points)
    # A limit that is near: much less growth matters than what the streams may take.
    near = {"cgroup_limit_bytes": [(points[-1][0], 1e9)], "cgroup_working_bytes": [(points[-1][0], 1e9 - 1e6)]}
    told = verdict(_readings({**series, "open_streams": streams, **near}))
    said = _said(told, "no more than the streams take")
    return said, said and slope > MATTERS


def _readings(series: Mapping[str, Any]) -> Readings:
    flat = [(time, 10.0) for time, _ in next(iter(series.values()))]
    held = {"rss_bytes": _RSS, "parts": {"python_free": 0, "malloc_free": 0}}
    quiet = {
        "tasks": flat,
        "children": flat,
        "open_streams": flat,
        "python_live_bytes": flat,
        "python_large_blocks": flat,
    }
    return Readings(state="answering", balance=held, open_streams=10, series={**quiet, **series}, since=0.0)


def _said(told: Verdict, words: str) -> bool:
    return told.word == "load_only" and words in told.finding.says


STATEMENTS: Final[dict[str, Callable[[Points, float], tuple[bool, bool]]]] = {
    "a worker's memory does not grow by as much as matters": _worker,
    "all processes together do not": _whole,
    "what memory gains is no more than streams take": _streams,
}


def simulate(
    seconds: int,
    count: int,
    statements: Iterable[str] = tuple(STATEMENTS),
    *,
    noises: Iterable[str] = tuple(NOISES),
    seed: int = 7,
) -> dict[str, dict[tuple[str, float], Outcome]]:
    """Statement -> (noise, true slope in units of what matters) -> what came of it, over `count` series of each kind."""
    outcomes: dict[str, dict[tuple[str, float], Outcome]] = {statement: {} for statement in statements}
    for noise in noises:
        make = NOISES[noise]
        scales = _scales(make, seconds)
        rng = random.Random(seed)
        for at in range(count):
            scale, drawn = scales[at % len(scales)], make(rng, seconds)
            for truth in TRUTHS:
                slope = truth * MATTERS
                points = [(float(time), 300 * MIB + slope * time + scale * value) for time, value in enumerate(drawn)]
                for statement, cells in outcomes.items():
                    cells.setdefault((noise, truth), Outcome()).add(*STATEMENTS[statement](points, slope))
    return outcomes


def _scales(make: Callable[[random.Random, int], list[float]], seconds: int) -> list[float]:
    """Bytes for one unit of a noise, for each of `_REACHES`."""
    rng = random.Random(3)
    found = [drift(list(enumerate(make(rng, seconds)))) for _ in range(20)]
    reach = median((each.high - each.low) / 2 for each in found if each is not None)
    return [wanted * MATTERS / reach for wanted in _REACHES]
