"""Is it a leak? The decision rule, and nothing else.

Memory figures of one process are noisy and correlated, and an experimenter who tests after every round and stops at a
welcome result accuses well-behaved programs. So, before the first round, three things are declared:

    the least growth that matters, for each measure in its unit: smaller growth is no problem;
    the looks: the numbers of rounds after which a decision may be taken, and at no other time;
    the level: the probability of a wrong answer that is accepted for all looks and all measures together.

At a look each measure gets a confidence interval. One measure is enough to accuse, so the level of an accusation is the
declared one divided by looks and measures (Bonferroni: no independence needed). To acquit, all measures must be below at
once, and what all have to pass needs no division by their number (an intersection-union test, Berger 1982): there the level
is the declared one divided by the looks. Then

    LEAK           the whole interval of a measure of memory that stays is above its least growth: `remains`, `resident`,
                   `held`
    UNBOUNDED      not LEAK, and the whole interval of a measure of unbounded growth is: `growth`, `load`, `exit`
    BOUNDED        every interval lies below its least growth (an equivalence test: flat within what matters)
    INCONCLUSIVE   anything else after the last look

The interval is Student's t on the rounds' figures; of four rounds and more the first one's resident memory is left out, since
pages that are touched for the first time stay. That takes them as draws around one mean with roughly normal noise,
and successive rounds of one process as correlated by at most a lag-1 (AR(1)) dependence: the variance of the mean is
multiplied by (1 + r) / (1 - r), r being the sample's lag-1 correlation, corrected for its small-sample bias (Kendall
1954), never below 0 and never above 0.8. A drift slower than that looks like growth to this rule; alternating the two
subjects is what shows it. `python -m diagnostics.proof.study.rates` prints how often the rule is wrong, under noise that
breaks the assumption too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from .student import quantile

__all__ = ["Decision", "Interval", "Judgement", "Measure", "Plan", "confidence_interval", "decide", "lag_one"]

# Above this a handful of rounds cannot tell a correlated process from a drifting one.
_MOST_CORRELATION = 0.8
# From so many rounds on the first one's resident memory is left out.
_ROUNDS_TO_TOUCH = 4


class Decision(StrEnum):
    LEAK = "LEAK"
    UNBOUNDED = "UNBOUNDED"
    BOUNDED = "BOUNDED"
    INCONCLUSIVE = "INCONCLUSIVE"


class Measure(StrEnum):
    """A measure that is judged. `accuses`: the decision for a measure above its least growth.

    growth    bytes that an open stream gains with each chunk
    remains   in-use bytes that stay for each stream that has ended
    resident  resident bytes that stay for it: also memory that no allocator counts, and free memory that an allocator keeps
    load      bytes that each stream beyond the light load adds to the peak
    held      bytes that a stream still holds at its end, while its client neither reads nor disconnects
    exit      seconds that the process lives after SIGTERM
    """

    GROWTH = "growth"
    REMAINS = "remains"
    RESIDENT = "resident"
    LOAD = "load"
    HELD = "held"
    EXIT = "exit"

    @property
    def unit(self) -> str:
        return _MEASURES[self][0]

    @property
    def accuses(self) -> Decision:
        return _MEASURES[self][1]


_MEASURES = {
    Measure.GROWTH: ("bytes per chunk", Decision.UNBOUNDED),
    Measure.REMAINS: ("bytes per stream", Decision.LEAK),
    Measure.RESIDENT: ("bytes per stream", Decision.LEAK),
    Measure.LOAD: ("bytes per offered stream", Decision.UNBOUNDED),
    Measure.HELD: ("bytes per stream", Decision.LEAK),
    Measure.EXIT: ("seconds", Decision.UNBOUNDED),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Declared before the first round. `looks`: rising numbers of rounds; `level`: for all looks and measures together."""

    looks: tuple[int, ...] = (4, 6, 8)
    level: float = 0.05

    def __post_init__(self) -> None:
        if not self.looks or self.looks[0] < 3 or any(a >= b for a, b in pairwise(self.looks)):
            raise ValueError(f"looks must rise and begin at 3 rounds or more, not {self.looks!r}")
        if not 0 < self.level < 1:
            raise ValueError(f"a level must be between 0 and 1, not {self.level!r}")

    @property
    def most_rounds(self) -> int:
        return self.looks[-1]


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval of a mean. `level`: the probability that it misses the mean; `correlation`: r."""

    mean: float
    low: float
    high: float
    rounds: int
    level: float
    correlation: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """A decision with its evidence: the interval of each measure at the look that decided, or at the last one.

    An accusation has the intervals of an accusation, any other decision the narrower ones of an acquittal.
    """

    decision: Decision
    rounds: int
    intervals: Mapping[Measure, Interval]
    least: Mapping[Measure, float]


def lag_one(values: Sequence[float]) -> float:
    """The lag-1 correlation of successive rounds, bias-corrected, between 0 and 0.8."""
    mean = sum(values) / len(values)
    total = sum((value - mean) ** 2 for value in values)
    if total == 0:
        return 0.0
    raw = sum((a - mean) * (b - mean) for a, b in pairwise(values)) / total
    corrected = raw + (1 + 4 * max(0.0, raw)) / len(values)
    return min(_MOST_CORRELATION, max(0.0, corrected))


def confidence_interval(values: Sequence[float], level: float) -> Interval:
    """The interval that misses the mean of `values` with probability `level`. Needs two values; raises ValueError."""
    count = len(values)
    if count < 2:
        raise ValueError(f"an interval needs two rounds, there are {count}")
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    correlation = lag_one(values)
    error = math.sqrt(variance / count * (1 + correlation) / (1 - correlation))
    reach = quantile(1 - level / 2, count - 1) * error
    return Interval(mean, mean - reach, mean + reach, count, level, correlation)


def decide(figures: Mapping[Measure, Sequence[float]], least: Mapping[Measure, float], plan: Plan) -> Judgement:
    """Apply the rule to the rounds' `figures` of those measures that have a `least` growth.

    Every look that the rounds have reached is taken in order, and the first conclusive one stands, whatever came later: so
    the same rounds always give the same answer. Raises ValueError before the first look.
    """
    if not least:
        raise ValueError("nothing is judged: no measure has a least growth that matters")
    rounds = min(len(figures[measure]) for measure in least)
    reached = [look for look in plan.looks if look <= rounds]
    if not reached:
        raise ValueError(f"there are {rounds} rounds, the first look is after {plan.looks[0]}")
    level = plan.level / len(plan.looks)
    for look in reached:
        for share, judge in ((level / len(least), _accusation), (level, _acquittal)):
            intervals = {
                measure: confidence_interval(_judged(measure, figures[measure][:look]), share) for measure in least
            }
            decision = judge(intervals, least)
            if decision is not Decision.INCONCLUSIVE:
                return Judgement(decision, look, intervals, dict(least))
    return Judgement(decision, look, intervals, dict(least))


def _judged(measure: Measure, values: Sequence[float]) -> Sequence[float]:
    """The rounds that count: of resident memory not the first of four or more, which touches pages that then stay resident."""
    return values[1:] if measure is Measure.RESIDENT and len(values) >= _ROUNDS_TO_TOUCH else values


def _accusation(intervals: Mapping[Measure, Interval], least: Mapping[Measure, float]) -> Decision:
    accused = {measure.accuses for measure, interval in intervals.items() if interval.low > least[measure]}
    # LEAK first: memory that stays is worse than memory that grows while streams are open.
    return next((each for each in (Decision.LEAK, Decision.UNBOUNDED) if each in accused), Decision.INCONCLUSIVE)


def _acquittal(intervals: Mapping[Measure, Interval], least: Mapping[Measure, float]) -> Decision:
    below = all(interval.high < least[measure] for measure, interval in intervals.items())
    return Decision.BOUNDED if below else Decision.INCONCLUSIVE
