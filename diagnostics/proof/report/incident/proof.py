"""A report from an experiment: the decisions, their readings, and the holders of the memory."""

from __future__ import annotations

import linecache
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....analysis.decision import Decision, Measure
from ....analysis.growth import Round
from ....analysis.profile import Frame
from ....analysis.units import format_value
from ...experiment.comparison import UNITS, Comparison
from ...experiment.experiment import Outcome, SideOutcome
from ..evidence import own_first, top_line
from ..remarks import basis, remarks
from ..versions import versions
from .folder import write
from .model import Curve, Flame, Incident, Plot, ReportTable, Statement, Tone, sites

__all__ = ["from_outcome", "write_reports"]

# Reference paths shown for each type.
_MOST_PATHS = 3

_TONES = {
    Decision.LEAK: Tone.BAD,
    Decision.UNBOUNDED: Tone.BAD,
    Decision.BOUNDED: Tone.GOOD,
    Decision.INCONCLUSIVE: Tone.OPEN,
}


def from_outcome(outcome: Outcome, numbers: Mapping[str, Any], command: str) -> Incident:
    """The report of one experiment. `numbers`: its JSON (a scenario of `tables.to_json`); `command`: to repeat it."""
    captured = [side for side in outcome.sides if side.capture is not None]
    notes = dict.fromkeys(
        note for side in captured if side.capture is not None for note in side.capture.profile.not_covered
    )
    unknown = [
        f"why the objects of {side.side} are alive: {side.capture.grown_unknown}"
        for side in captured
        if side.capture is not None and side.capture.grown_unknown
    ]
    return Incident(
        title=outcome.scenario.name if outcome.scenario.claim else "compare",
        when=outcome.began,
        seconds=outcome.seconds,
        lead=" ".join(outcome.scenario.claim.split()),
        statements=tuple(_statement(side, outcome) for side in outcome.sides),
        plots=tuple(_timelines(outcome)),
        tables=(_figures(outcome), *_grown(outcome), *_sites(outcome), *_balances(outcome)),
        context=(_workload(numbers), _clients(outcome)),
        flames=tuple(_flames(outcome)),
        commands=(command,),
        versions=versions(),
        notes=(*notes, *unknown, *remarks(outcome)),
    )


def write_reports(outcomes: Sequence[Outcome], numbers: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write a report of each outcome where `tables.write_folder` puts its files; return the pages' paths."""
    return [
        write(
            from_outcome(outcome, scenario, numbers["command"]),
            folder if len(outcomes) == 1 else folder / outcome.scenario.name,
        )
        for outcome, scenario in zip(outcomes, numbers["scenarios"], strict=True)
    ]


def _statement(side: SideOutcome, outcome: Outcome) -> Statement:
    by = f", {stands_on}" if (stands_on := basis(side)) else ""
    if isinstance(outcome.scenario, Comparison):
        return Statement(_TONES[side.decision], str(side.decision), f"{side.side}: {side.app}{by}")
    as_foretold = "as expected" if side.verified else f"expected {side.expected}"
    tone = _TONES[side.decision] if side.verified else Tone.OPEN
    return Statement(tone, str(side.decision), f"{side.side}: {side.app} ({as_foretold}){by}")


def _timelines(outcome: Outcome) -> list[Plot]:
    rounds = [each for side in outcome.sides for each in side.rounds]
    if not rounds:
        return []
    begin = min(each.before.time for each in rounds)
    curves = tuple(
        Curve(side.side, _TONES[side.decision], tuple(_piece(each, begin) for each in side.rounds))
        for side in outcome.sides
        if side.rounds
    )
    unknown = any(side.read == "rss" for side in outcome.sides)
    what = "RSS, where nobody can tell more" if unknown else "allocated and not freed"
    note = f"Bytes in use ({what}). One line for each round: settled before, streams open, settled after; both sides at once."
    return [Plot("Memory in use", curves, note)]


def _piece(each: Round, begin: float) -> tuple[tuple[float, float], ...]:
    readings = (each.before, *each.readings, each.after)
    return tuple((reading.time - begin, float(reading.in_use_bytes)) for reading in readings)


def _figures(outcome: Outcome) -> ReportTable:
    units = {measure: measure.unit for measure in Measure}
    if isinstance(outcome.scenario, Comparison):
        units |= UNITS
    rows = []
    for side in outcome.sides:
        if side.finding is None:
            continue
        for measure, interval in side.finding.intervals.items():
            rows.append(
                (
                    side.side,
                    f"{measure}, {units[measure]}",
                    _number(measure, interval.mean),
                    f"{_number(measure, interval.low)} .. {_number(measure, interval.high)}",
                    _number(measure, side.finding.least[measure]),
                    str(interval.rounds),
                )
            )
        if side.peaks:
            mean = sum(side.peaks) / len(side.peaks)
            rows.append((side.side, "peak, bytes per stream", f"{mean:,.0f}", "not judged", "", str(len(side.peaks))))
    headings = ("side", "measure", "mean", "interval", "least that matters", "rounds")
    return ReportTable("Figures", headings, tuple(rows), frozenset({0, 1}))


def _number(measure: Measure, value: float) -> str:
    return f"{value:.2f}" if measure is Measure.EXIT else f"{value:,.0f}"


def _sites(outcome: Outcome) -> list[ReportTable]:
    tables = []
    for side in outcome.sides:
        if side.capture is None:
            continue
        line = top_line(side.capture.profile, outcome.scenario.source_of(side.side))
        own = "" if line is None else f"; most of it by {line.frame.function}, line {line.frame.line}"
        total = format_value(side.capture.profile.total(), "bytes")
        title = f"Held by {side.side} at the end of a capture: {total}{own}"
        tables.append(sites(title, side.capture.profile, source=_source))
    return tables


def _source(frame: Frame) -> str:
    """The line's text, empty where its file cannot be read."""
    return linecache.getline(frame.file, frame.line).strip() if frame.file else ""


def _grown(outcome: Outcome) -> list[ReportTable]:
    """The types of objects that grew while streams were open, with reference paths; of accused sides only."""
    tables = []
    for side in outcome.sides:
        if side.capture is None or side.decision not in (Decision.LEAK, Decision.UNBOUNDED):
            continue
        rows = tuple(
            (
                grown.type,
                format_value(grown.bytes_delta, "bytes", signed=True),
                f"{grown.count_delta:+,}",
                _arrows(path),
            )
            for grown in side.capture.grown
            for path in own_first(grown.paths, side.capture.profile, outcome.scenario.source_of(side.side))[
                :_MOST_PATHS
            ]
        )
        if rows:
            headings = ("objects", "grew by", "number", "alive because of")
            tables.append(
                ReportTable(f"Why it is alive in {side.side}: what grew under load", headings, rows, frozenset({0, 3}))
            )
    return tables


def _arrows(path: str) -> str:
    """A path with arrows that a browser does not break across lines."""
    return path.replace(" -> ", " → ")


def _balances(outcome: Outcome) -> list[ReportTable]:
    """Resident memory by its parts, after the warm-up and after the last round: at rest both times."""
    rows = []
    for side in outcome.sides:
        if len(side.balances) != 2 or not side.balances[1]:
            continue
        before, after = side.balances
        for part in (*after, "together"):
            was, now = (sum(each.values()) if part == "together" else each.get(part, 0) for each in (before, after))
            change = format_value(now - was, "bytes", signed=True)
            rows.append((side.side, part, format_value(was, "bytes"), format_value(now, "bytes"), change))
    headings = ("side", "part of resident memory", "before", "after", "change")
    return (
        [ReportTable("Balance, before the first round and after the last", headings, tuple(rows), frozenset({0, 1}))]
        if rows
        else []
    )


def _workload(numbers: Mapping[str, Any]) -> ReportTable:
    work = numbers["workload"]
    clients = ", ".join(
        f"{client['count']} x {client['kind']}"
        + "".join(f" {key}={value}" for key, value in client.items() if key not in ("count", "kind"))
        for client in work["clients"]
    )
    rows = [
        ("request", work["model"]),
        ("clients", clients),
        ("a round", f"{work['round_seconds']:g} s, of which {work['transient_seconds']:g} s are not judged"),
        ("looks after rounds", ", ".join(map(str, numbers["plan"]["looks"]))),
        ("seed", str(numbers["seed"])),
    ]
    return ReportTable("Work", ("what", "how"), tuple(rows), frozenset({0, 1}))


def _clients(outcome: Outcome) -> ReportTable:
    rows = []
    for side in outcome.sides:
        streams = sum(load.streams for load in side.loads)
        events = sum(load.events for load in side.loads)
        size = format_value(sum(load.bytes for load in side.loads), "bytes")
        failed = sum(load.outcomes["failed"] for load in side.loads)
        rows.append((side.side, f"{streams:,}", f"{events:,}", size, f"{failed:,}"))
    return ReportTable("What the clients saw", ("side", "streams", "events", "received", "failed"), tuple(rows))


def _flames(outcome: Outcome) -> list[Flame]:
    profiles = [(side.side, side.capture.profile) for side in outcome.sides if side.capture is not None]
    flames = [Flame(f"Held by {name}", profile) for name, profile in profiles]
    if len(profiles) > 1 and profiles[0][1].sample_types == profiles[1][1].sample_types:
        # The first two are the pair that differs in one defect; the user's own relay comes third.
        (first, before), (second, after) = profiles[:2]
        flames.append(Flame(f"From {first} to {second}: what shrank and what grew", after, before))
    return flames
