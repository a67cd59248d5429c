"""Sentences beside a decision: the deciding measure, what was not seen, why there is no explanation, and the next step.

Pure: an outcome in, text out.
"""

from __future__ import annotations

import math

from ...analysis.decision import Decision, Interval, Judgement, Measure
from ...analysis.growth import kernel_queues
from ...analysis.units import format_value
from ..experiment.comparison import BEFORE, Comparison
from ..experiment.experiment import Outcome, SideOutcome
from ..experiment.rounds import LEAST_QUEUE_BYTES
from ..scenario import BROKEN, Scenario

__all__ = ["basis", "remarks"]

# Advice to take more than this many times the rounds or streams is not given.
_MOST_TIMES = 16

_NAMES = {
    Measure.GROWTH: "growth of open streams",
    Measure.REMAINS: "bytes in use after the streams",
    Measure.RESIDENT: "resident memory after the streams",
    Measure.LOAD: "the load",
    Measure.HELD: "what silent clients hold",
    Measure.EXIT: "the time until exit",
}


def basis(side: SideOutcome) -> str:
    """The measures that led to the decision, in a few words; empty where it is INCONCLUSIVE."""
    finding = side.finding
    if finding is None or finding.decision is Decision.INCONCLUSIVE:
        return ""
    if Measure.EXIT in finding.intervals:
        return "by the time until exit"
    if side.read == "rss":
        return f"by resident memory alone, with a wider bound: {side.why}"
    if finding.decision is Decision.BOUNDED:
        return "by bytes in use and by resident memory"
    accused = [measure for measure, interval in finding.intervals.items() if interval.low > finding.least[measure]]
    if accused == [Measure.RESIDENT]:
        return "by resident memory alone: no allocator counts it as in use, or one keeps what was freed"
    return "by bytes in use and by resident memory" if Measure.RESIDENT in accused else "by bytes in use"


def remarks(outcome: Outcome) -> list[str]:
    """The remarks on all sides, as sentences."""
    sentences: list[str] = []
    for side in outcome.sides:
        sentences += _queues(side, outcome.scenario)
        if side.unexplained:
            sentences.append(
                f"{side.side}: what holds the memory is not known, which changes nothing: {side.unexplained}"
            )
        if side.unweighed:
            sentences.append(
                f"{side.side}: there is no balance of before and after, which changes nothing: {side.unweighed}"
            )
        if side.decision is Decision.INCONCLUSIVE and side.finding is not None:
            sentences.append(f"{side.side}: undecided: {_next_step(side.finding, outcome.scenario)}")
        if side.side in (BEFORE, BROKEN) and side.decision is Decision.BOUNDED:
            sentences.append(_nothing_shown(side.side, outcome.scenario))
    return sentences


def _queues(side: SideOutcome, scenario: Scenario) -> list[str]:
    """A remark on bytes in the kernel's queues for slow clients, which are in no figure of the process."""
    if not side.rounds:
        return []
    judged = scenario.workload.seconds - scenario.workload.transient_seconds
    queues = [kernel_queues(each, each.seconds - judged) for each in side.rounds]
    most = max(size for size, _ in queues)
    slow = scenario.workload.mix.slow
    if not slow or most < LEAST_QUEUE_BYTES * slow:
        return []
    held = (
        f"{side.side}: the kernel's send queues held up to {format_value(most, 'bytes')} for {slow} clients that"
        " read more slowly than they are sent to. That counts against a container's limit and is in none of the figures above"
    )
    if side.decision is Decision.UNBOUNDED or sum(filling for _, filling in queues) * 2 < len(queues):
        return [f"{held}."]
    longer = f"--seconds {scenario.workload.seconds * 4:g}" if isinstance(scenario, Comparison) else "longer rounds"
    unseen = (
        f"{held}; they were still filling when the rounds ended, so what the service itself buffers for such a client was"
        f" not reached: try {longer}, or a smaller SO_SNDBUF."
    )
    return [unseen]


def _next_step(finding: Judgement, scenario: Scenario) -> str:
    """Advice for an inconclusive result: by what factor the widest measure's interval is too wide."""
    open_measures = {
        measure: interval
        for measure, interval in finding.intervals.items()
        if not interval.high < finding.least[measure]
    }
    if not open_measures:
        return "give it more rounds"
    measure, interval = max(open_measures.items(), key=lambda item: _times(item[1], finding.least[item[0]]))
    least = finding.least[measure]
    where = (
        f"{_NAMES[measure]} lies between {interval.low:,.0f} and {interval.high:,.0f}, and {least:,.0f} is what matters"
    )
    times = _times(interval, least)
    if times > _MOST_TIMES:
        return f"{where}: its mean of {interval.mean:,.0f} is too close to that; {_other_least(measure, interval, scenario)}"
    if not isinstance(scenario, Comparison):
        return f"{where}; run it again where the machine has less to do"
    work = scenario.workload
    if measure in (Measure.REMAINS, Measure.RESIDENT):
        return f"{where}; try --streams {work.mix.streams * times}, so that {times} times as many end in each round"
    return f"{where}; try --seconds {work.seconds * times:g}, or more rounds (--rounds)"


def _times(interval: Interval, least: float) -> int:
    """By what factor the interval is too wide to be on one side of `least`."""
    reach, distance = (interval.high - interval.low) / 2, abs(least - interval.mean)
    return _MOST_TIMES + 1 if distance * _MOST_TIMES < reach else max(2, math.ceil(reach / distance))


def _other_least(measure: Measure, interval: Interval, scenario: Scenario) -> str:
    if not isinstance(scenario, Comparison):
        return "the scenario's least growth is to be chosen further from what it causes"
    option = "--least-growth" if measure is Measure.GROWTH else "--least"
    high, low = (max(1, round(size)) for size in (interval.high * 2, abs(interval.mean) / 2))
    return f"say what matters to you: {option} {high}, or {low}"


def _nothing_shown(side: str, scenario: Scenario) -> str:
    shown = f"{side} is BOUNDED: this work brings no defect out, so nothing is proved of a fix"
    if not isinstance(scenario, Comparison):
        return f"{shown}; run `diagnostics reproduce {scenario.name}` and look what the broken app does."
    work = scenario.workload
    return (
        f"{shown}; try the work under which it grew: the request (--path, --method, --body), longer rounds"
        f" (--seconds {work.seconds * 4:g}), more streams (--streams {work.mix.streams * 4}), clients that read more slowly"
        f" (--slow 100% --slow-rate 1024), or a smaller --least than {scenario.least[Measure.REMAINS]:,.0f}."
    )
