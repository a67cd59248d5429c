"""The outcome of an experiment as a table, as JSON, and as JUnit XML for a build server.

`to_json` is pure and complete: every reading, the plan declared before, the versions, and the command to repeat it. The
table has no number that is not in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich import box
from rich.console import Console
from rich.table import Table

from ...analysis.decision import Decision, Interval, Judgement, Measure
from ..clients.mix import Mix
from ..experiment.experiment import RESIDENT_ROOM_BYTES, Outcome, SideOutcome
from .evidence import leads_to_own, own_first, own_names, top_line
from .remarks import basis, remarks
from .versions import versions

__all__ = ["SCHEMA", "console", "print_held", "print_table", "to_json", "write_folder", "write_junit"]

SCHEMA = "highwater.proof/1"

_COLORS = {
    Decision.LEAK: "red",
    Decision.UNBOUNDED: "red",
    Decision.BOUNDED: "green",
    Decision.INCONCLUSIVE: "yellow",
}
# The widest row that is usual.
_TABLE_WIDTH = 110
_UNITS = {
    Measure.GROWTH: "B/chunk",
    Measure.REMAINS: "B/stream",
    Measure.RESIDENT: "B/stream",
    Measure.LOAD: "B/offered stream",
    Measure.HELD: "B/stream",
    Measure.EXIT: "s",
}


def console() -> Console:
    """Standard output; as wide as the table where it is no terminal, so that a log has unwrapped lines."""
    wide = Console()
    return wide if wide.is_terminal else Console(width=max(wide.width, _TABLE_WIDTH))


def print_table(
    outcomes: Sequence[Outcome], console: Console, *, claims: bool = True, units: Mapping[Measure, str] = _UNITS
) -> None:
    """Print a table for each scenario, a row for each measure of each app; without `claims`, no expected decisions."""
    for outcome in outcomes:
        table = Table(
            title=f"{outcome.scenario.name} ({outcome.seconds:.0f} s)",
            title_justify="left",
            header_style="bold",
            box=box.SIMPLE_HEAD,
        )
        headings = ("app", "measured", "mean [interval]", "least", "decision", "expected", "verified")
        for heading in headings if claims else headings[:-2]:
            table.add_column(heading, justify="right" if heading in ("mean [interval]", "least") else "left")
        for side in outcome.sides:
            for index, (measured, interval, least) in enumerate(_rows(side, units)):
                verdict = (
                    f"[{_COLORS[side.decision]}]{side.decision}[/]",
                    str(side.expected),
                    "[green]yes[/]" if side.verified else "[red]no[/]",
                )
                # Escaped: rich takes square brackets for markup.
                cells = (side.side if index == 0 else "", measured, interval.replace("[", r"\["), least)
                last = verdict if index == 0 else ("", "", "")
                table.add_row(*cells, *(last if claims else last[:1]))
            table.add_section()
        console.print(table)


def _rows(side: SideOutcome, units: Mapping[Measure, str] = _UNITS) -> list[tuple[str, str, str]]:
    """(measure with its unit, mean with the interval, least growth that matters) of each measure."""
    finding = side.finding
    if finding is None:
        return []
    rows = [
        (
            f"{measure}, {units[measure]}",
            _interval(measure, interval),
            _figure(measure, finding.least[measure]),
        )
        for measure, interval in finding.intervals.items()
    ]
    peaks = side.peaks[: finding.rounds]
    return [*rows, ("peak, B/stream", f"{sum(peaks) / len(peaks):,.0f}", "")] if peaks else rows


def _interval(measure: Measure, interval: Interval) -> str:
    mean, low, high = (_figure(measure, value) for value in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low} .. {high}]"


def _figure(measure: Measure, value: float) -> str:
    return f"{value:.2f}" if measure is Measure.EXIT else f"{value:,.0f}"


def print_held(outcome: Outcome, console: Console) -> None:
    """Print, for each captured app, the line under which most bytes are held."""
    for side in outcome.sides:
        if side.capture is None:
            continue
        line = top_line(side.capture.profile, outcome.scenario.source_of(side.side))
        where = (
            "no line of its own holds memory"
            if line is None
            else f"{line}  {_size(line.bytes)}, {line.share:.0%} of it"
        )
        coverage = side.capture.coverage_percent
        seen = "" if coverage is None else f" (stacks known for {coverage:.0f} % of the bytes)"
        console.print(f"held by the {side.side} app{seen}: {where}", markup=False, highlight=False, soft_wrap=True)
        if side.decision not in (Decision.LEAK, Decision.UNBOUNDED):
            continue
        if alive := _alive(side, outcome.scenario.source_of(side.side)):
            console.print(f"alive in it: {alive}", markup=False, highlight=False, soft_wrap=True)


def _alive(side: SideOutcome, source: str) -> str:
    """The reference path to the type that grew most in an accused app, or why it is unknown; empty where no type grew."""
    capture = side.capture
    grown = None if capture is None else next((grown for grown in capture.grown if grown.paths), None)
    if capture is None or grown is None:
        return "" if capture is None or not capture.grown_unknown else f"not known, {capture.grown_unknown}"
    path = own_first(grown.paths, capture.profile, source)[0]
    own = own_names(capture.profile, source)
    if own and not leads_to_own(path, own):
        # The profile's top line is the app's own, the path is not: the two readings disagree.
        return f"not known, the samples of {grown.type} that were traced back are held by libraries alone"
    return f"{path} (grew by {_size(grown.bytes_delta)} while it was looked at)"


def to_json(outcomes: Sequence[Outcome], command: str) -> dict[str, Any]:
    """The whole result. Bytes, seconds; `began`: seconds since the epoch; `command`: to repeat it."""
    return {
        "schema": SCHEMA,
        "command": command,
        "verified": all(outcome.verified for outcome in outcomes),
        "versions": versions(),
        "scenarios": [_outcome(outcome) for outcome in outcomes],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    scenario = outcome.scenario
    return {
        "name": scenario.name,
        "claim": scenario.claim,
        "seed": outcome.seed,
        "began": outcome.began,
        "seconds": outcome.seconds,
        "verified": outcome.verified,
        "plan": asdict(scenario.plan),
        "least": {str(measure): value for measure, value in scenario.least.items()},
        "resident_room_bytes": RESIDENT_ROOM_BYTES,
        "workload": {
            "model": scenario.workload.upstream.model(outcome.seed),
            "clients": _clients(scenario.workload.mix),
            "light_clients": None if scenario.workload.light is None else _clients(scenario.workload.light),
            "again": scenario.workload.mix.again,
            "round_seconds": scenario.workload.seconds,
            "transient_seconds": scenario.workload.transient_seconds,
            "send_buffer_bytes": scenario.workload.send_buffer_bytes,
        },
        "sides": [_side(side, scenario.source_of(side.side)) for side in outcome.sides],
        "remarks": remarks(outcome),
    }


def _clients(mix: Mix) -> list[dict[str, Any]]:
    return [{"kind": behavior.kind, "count": count, **behavior.parameters()} for behavior, count in mix.clients]


def _side(side: SideOutcome, source: str) -> dict[str, Any]:
    line = None if side.capture is None else top_line(side.capture.profile, source)
    return {
        "side": side.side,
        "app": side.app,
        "read": side.read,
        "in_use_unknown": side.why or None,
        "stands_on": basis(side) or None,
        "not_captured": side.unexplained or None,
        "decision": str(side.decision),
        "expected": str(side.expected),
        "verified": side.verified,
        "finding": None if side.finding is None else _finding(side.finding),
        "figures": {str(measure): values for measure, values in side.figures.items() if values},
        "peak_bytes_per_stream": side.peaks,
        "rounds": [asdict(round_) for round_ in side.rounds],
        "loads": [load.to_json() for load in side.loads],
        "balances": [dict(balance) for balance in side.balances],
        "grown": [] if side.capture is None else [asdict(grown) for grown in side.capture.grown],
        "held": None if line is None else {**asdict(line.frame), "bytes": line.bytes, "share": line.share},
    }


def _finding(finding: Judgement) -> dict[str, Any]:
    return {
        "rounds": finding.rounds,
        "intervals": {
            str(measure): {**asdict(interval), "unit": Measure(measure).unit, "least": finding.least[measure]}
            for measure, interval in finding.intervals.items()
        },
    }


def write_folder(outcomes: Sequence[Outcome], numbers: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write numbers.json (`numbers`) and each app's flame graph and profile; return the flame graphs' paths.

    With several scenarios each has a folder of its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    graphs = []
    for outcome in outcomes:
        place = folder if len(outcomes) == 1 else folder / outcome.scenario.name
        place.mkdir(exist_ok=True)
        for side in outcome.sides:
            if side.capture is not None:
                graphs.append(place / f"{side.side}-flamegraph.html")
                graphs[-1].write_bytes(side.capture.flamegraph)
                (place / f"{side.side}-profile.json").write_text(
                    json.dumps(side.capture.profile.to_json()) + "\n", encoding="utf-8"
                )
    return graphs


def write_junit(outcomes: Sequence[Outcome], path: Path) -> None:
    """One test case for each app, failed where the decision is not the expected one."""
    root = ElementTree.Element("testsuites", name="diagnostics verify")
    for outcome in outcomes:
        failures = sum(not side.verified for side in outcome.sides)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=outcome.scenario.name,
            tests=str(len(outcome.sides)),
            failures=str(failures),
            time=f"{outcome.seconds:.1f}",
        )
        for side in outcome.sides:
            case = ElementTree.SubElement(suite, "testcase", classname=outcome.scenario.name, name=side.side)
            if not side.verified:
                evidence = "; ".join(f"{measured}: {interval}" for measured, interval, _ in _rows(side))
                failure = ElementTree.SubElement(case, "failure", message=f"{side.decision}, expected {side.expected}")
                failure.text = evidence
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _size(size: float) -> str:
    return f"{size / 1024 / 1024:.1f} MiB" if size >= 1024 * 1024 else f"{size / 1024:.0f} KiB"
