"""A report from the captures of a live service: its verdicts, its memory over time, the holders of its memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ....analysis.profile import Profile
from ....analysis.units import format_value
from ....monitor.captures.kinds import KINDS
from ..versions import versions
from .model import Curve, Flame, Incident, Plot, ReportTable, Statement, Tone, sites

__all__ = ["Bundle", "from_bundle"]


@dataclass
class Bundle:
    """The data collected from one monitor.

    url        of the service's monitor
    states     (wall-clock time, overview of /debug/memory), oldest first; at least one
    captures   kind -> the monitor's JSON of the capture, with its result, or with its error where it failed
    profiles   kind -> its profile, for those that have one
    """

    url: str
    states: list[tuple[float, Mapping[str, Any]]] = field(default_factory=list)
    captures: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)


def from_bundle(bundle: Bundle, command: str) -> Incident:
    """The report of `bundle`; `command`: the one that collected it."""
    (began, first), (ended, last) = bundle.states[0], bundle.states[-1]
    failed = [
        f"{kind}: {(capture.get('error') or {}).get('message') or capture['state']}"
        for kind, capture in bundle.captures.items()
        if capture["state"] != "done"
    ]
    notes = dict.fromkeys(note for profile in bundle.profiles.values() for note in profile.not_covered)
    return Incident(
        title=f"A live service, by its monitor at {bundle.url}",
        when=began,
        seconds=ended - began,
        lead="Captures taken one after the other. A tracer slows the service while its window is open, and is memory itself.",
        statements=(*_ends(last), *_verdicts(last), *_statements(last)),
        plots=_memory(bundle.states),
        tables=(
            _workers(first, last),
            *(_streams(last)),
            *(sites(_headline(kind, bundle), profile) for kind, profile in bundle.profiles.items()),
        ),
        flames=tuple(
            Flame(f"{kind}, {profile.sample_types[0].name}", profile) for kind, profile in bundle.profiles.items()
        ),
        context=(_captures(bundle.captures),),
        commands=(command,),
        versions=_versions(bundle.captures),
        notes=(*(f"not captured: {text}" for text in failed), *notes),
    )


def _headline(kind: str, bundle: Bundle) -> str:
    result = bundle.captures[kind].get("result")
    return kind if result is None else f"{kind}: {KINDS[kind].headline(result)}"


def _ends(state: Mapping[str, Any]) -> list[Statement]:
    """How the previous process of a worker ended, where that was not normal."""
    statements = []
    for end in state.get("ends") or ():
        verdict = f" Its last verdict: {end['verdict']}" if end.get("verdict") else ""
        file = f" Recorded in {end['file']}." if end.get("file") else ""
        text = f"worker {end['worker']} (pid {end['pid']}): {end['said']}{verdict}{file}"
        statements.append(Statement(Tone.BAD, "Killed for memory" if end["oom"] else "Ended", text))
    return statements


def _verdicts(state: Mapping[str, Any]) -> list[Statement]:
    """The verdict on each worker, with culprit, path and next step; then that on the service."""
    judged = [(f"worker {worker['worker']}", worker["verdict"]) for worker in state["workers"] if worker.get("verdict")]
    whole = (state.get("service") or {}).get("verdict")
    if whole and whole["alarm"]:
        judged.append(("the service as a whole", whole))
    statements = []
    for of, verdict in judged:
        tone = Tone.BAD if verdict["alarm"] else Tone.OPEN if verdict["verdict"] == "inconclusive" else Tone.GOOD
        words = [f"{of}, {verdict['confidence']} confidence: {verdict['says']}"]
        if verdict.get("culprit"):
            words.append(f"Culprit: {verdict['culprit']}.")
        if verdict.get("path"):
            words.append(f"Kept alive by: {verdict['path']}.")
        words += [f"Next: {verdict['next']}", f"Fix: {verdict['fix']}"]
        words += [f"Also: {other['title']}: {other['says']}" for other in verdict.get("also") or ()]
        statements.append(Statement(tone, verdict["title"], " ".join(words)))
    return statements


def _versions(captures: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The versions of the service, from its captures; then those of the command that wrote the report."""
    facts = next((capture for capture in captures.values() if capture.get("versions")), {})
    of_service = {f"service: {name}": str(text) for name, text in (facts.get("versions") or {}).items() if text}
    if facts.get("revision"):
        of_service["service: revision"] = str(facts["revision"])
    if facts.get("command"):
        of_service["service: command"] = " ".join(facts["command"])
    return {**of_service, **{f"report: {name}": text for name, text in versions().items()}}


def _statements(state: Mapping[str, Any]) -> list[Statement]:
    statements = []
    for worker in state["workers"]:
        tone = Tone.PLAIN if worker["state"] == "answering" else Tone.OPEN
        memory = worker["memory"]
        in_use = (
            "in-use bytes unknown" if memory["in_use_bytes"] is None else f"{_bytes(memory['in_use_bytes'])} in use"
        )
        text = f"worker {worker['worker']} (pid {worker['pid']}, {worker['state']}): {in_use}, {worker['tasks'] or 0} tasks"
        statements.append(Statement(tone, f"{_bytes(memory['rss_bytes'])} resident", text))
    return statements


def _memory(states: Sequence[tuple[float, Mapping[str, Any]]]) -> tuple[Plot, ...]:
    began = states[0][0]
    curves: dict[str, list[tuple[float, float]]] = {}
    for moment, state in states:
        for worker in state["workers"]:
            for label, key in (("in use", "in_use_bytes"), ("resident", "rss_bytes")):
                if (value := worker["memory"][key]) is not None:
                    curves.setdefault(f"worker {worker['worker']}, {label}", []).append((moment - began, float(value)))
    drawn = tuple(
        Curve(name, Tone.PLAIN if name.endswith("in use") else Tone.OPEN, (tuple(points),))
        for name, points in curves.items()
        if len(points) > 1
    )
    return (
        (Plot("Memory meanwhile", drawn, "Read while the captures were taken: tracers and forks show in it."),)
        if drawn
        else ()
    )


def _workers(first: Mapping[str, Any], last: Mapping[str, Any]) -> ReportTable:
    before = {worker["pid"]: worker["memory"] for worker in first["workers"]}
    rows = []
    for worker in last["workers"]:
        memory, was = worker["memory"], before.get(worker["pid"])
        change = "" if was is None else format_value(memory["rss_bytes"] - was["rss_bytes"], "bytes", signed=True)
        rows.append(
            (
                worker["worker"],
                worker["state"],
                _bytes(memory["rss_bytes"]),
                change,
                _bytes(memory["in_use_bytes"]),
                str(worker["tasks"] if worker["tasks"] is not None else "-"),
                str(worker["process"]["fds"] if worker["process"]["fds"] is not None else "-"),
                str(worker["process"]["threads"]),
            )
        )
    headings = ("worker", "state", "resident", "meanwhile", "in use", "tasks", "files", "threads")
    return ReportTable("Workers", headings, tuple(rows), frozenset({0, 1}))


def _streams(state: Mapping[str, Any]) -> list[ReportTable]:
    rows = [
        (str(row.get("route", "")), _bytes(row.get("buffered_bytes")), _bytes(row.get("retained_bytes")))
        for worker in state["workers"]
        for row in ((worker.get("ledger") or {}).get("top") or ())
    ]
    return [ReportTable("Largest open streams", ("route", "buffered", "retained"), tuple(rows))] if rows else []


def _captures(captures: Mapping[str, Mapping[str, Any]]) -> ReportTable:
    rows = tuple(
        (
            kind,
            capture["state"],
            str(capture.get("id", "")),
            ", ".join(part["name"] for part in capture.get("artifacts", ())),
        )
        for kind, capture in captures.items()
    )
    return ReportTable("Captures", ("kind", "state", "folder", "files"), rows, frozenset({0, 1, 2, 3}))


def _bytes(value: int | None) -> str:
    return "-" if value is None else format_value(value, "bytes")
