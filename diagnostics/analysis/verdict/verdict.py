"""The verdict on one worker: the first cause that the readings show, what it stands on, and what to do next.

The law of this file: a verdict never says more than its readings. No readings are "inconclusive", and so is memory that may
grow by as much as matters, as far as they tell; what else was found beside the first cause is listed, not dropped. A weak sign
never stands before a surer one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .allocated import with_line
from .causes import CAUSES
from .finding import Finding
from .no_growth import an_hour, open_questions, slope_evidence
from .readings import Evidence, Readings
from .startup import with_reserve
from .streams import with_doubt

__all__ = ["TOO_FEW", "Evidence", "Finding", "Readings", "Verdict", "verdict"]

# Why a verdict is inconclusive where there is nothing to be judged as yet.
TOO_FEW = "There are too few readings since the warm-up to judge: that takes about a minute."

SCHEMA = "highwater.verdict/1"

# A wait that is longer than what is recorded decides nothing.
_LONGEST_WAIT_SECONDS = 3600.0
# Releases of Python 3.14 whose collector is incremental, and verdicts that garbage which it leaves may look like.
_INCREMENTAL = frozenset("01234")
_OF_THE_COLLECTOR = frozenset({"waiting_garbage", "retained_objects", "memory_growth", "inconclusive"})
_DECIDE = "diagnostics capture URL --kind objects --seconds 30"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`finding` is the verdict, `also` what other checks say, in their order."""

    finding: Finding
    also: tuple[Finding, ...] = ()

    @property
    def word(self) -> str:
        return self.finding.word

    @property
    def alarm(self) -> bool:
        return CAUSES[self.finding.word].alarm

    def to_json(self, url: str = "URL", worker: str | None = None) -> dict[str, Any]:
        """url: the monitor's address, for the command; worker: named in the command where there are several."""
        cause = CAUSES[self.word]
        return {
            "schema": SCHEMA,
            "verdict": self.word,
            "title": cause.title,
            "alarm": self.alarm,
            "confidence": self.finding.confidence,
            "says": self.finding.says,
            "layer": self.finding.layer,
            "culprit": self.finding.culprit,
            "path": self.finding.path,
            "line": self.finding.line,
            "streams": list(self.finding.streams),
            "load_bytes": round(self.finding.load),
            "evidence": [evidence.to_json() for evidence in self.finding.evidence],
            "next": _command(self.finding, url, worker),
            "fix": cause.fix,
            "docs": cause.docs(self.word),
            "also": [
                {
                    "verdict": finding.word,
                    "title": CAUSES[finding.word].title,
                    "confidence": finding.confidence,
                    "says": finding.says,
                    "next": _command(finding, url, worker),
                }
                for finding in self.also
            ],
        }


def _command(finding: Finding, url: str, worker: str | None) -> str:
    command = (finding.next or CAUSES[finding.word].command).replace("URL", url)
    return f"{command} --worker {worker}" if worker is not None and " capture " in command else command


def verdict(readings: Readings) -> Verdict:
    """Judge one worker."""
    checks = (check for cause in CAUSES.values() for check in cause.checks)
    findings = [
        with_doubt(readings, with_line(readings, with_reserve(readings, finding)))
        for check in checks
        if (finding := check(readings)) is not None
    ]
    # Of one cause the first check that finds it tells enough.
    findings = [
        finding for at, finding in enumerate(findings) if finding.word not in {each.word for each in findings[:at]}
    ]
    alarms = [finding for finding in findings if CAUSES[finding.word].alarm]
    elsewhere = any(map(_grows_elsewhere, alarms))
    alarms.sort(key=lambda finding: 1 if elsewhere and finding.captured else _place(finding))
    if alarms:
        return Verdict(_with_defect(readings, alarms[0]), tuple(alarms[1:]))
    if findings:
        calm = _with_defect(readings, findings[0])
        return Verdict(_no_surer_than(readings, calm), tuple(findings[1:]))
    return Verdict(_with_defect(readings, with_line(readings, _inconclusive(readings))))


def _place(finding: Finding) -> int:
    """Where an alarm stands among the others, which keep the order of CAUSES: what is told with low confidence behind what is
    surer, and last where it names nobody. That memory is free explains no growth: it goes before no sign of any."""
    if finding.word == "allocator_free":
        return 2
    if finding.confidence != "low":
        return 0
    return 1 if finding.culprit is not None else 2


def _grows_elsewhere(finding: Finding) -> bool:
    """Whether it is certain that something grows which no task leads to: what streams hold is no explanation of that."""
    sure = finding.confidence == "high" and finding.path is not None
    return sure and finding.word == "retained_objects" and not str(finding.path).startswith("Task")


def _with_defect(readings: Readings, finding: Finding) -> Finding:
    """Named where the interpreter's own defect may be what is seen: its garbage collector keeps memory."""
    version = (readings.python or "").split(".")
    affected = len(version) > 2 and version[:2] == ["3", "14"] and version[2] in _INCREMENTAL
    if not affected or finding.word not in _OF_THE_COLLECTOR:
        return finding
    says = (
        f"{finding.says} This is Python {readings.python}: 3.14.0 to 3.14.4 collect garbage a little at a time and may keep "
        "several times the memory; 3.14.5 does not."
    )
    return replace(finding, says=says)


def _no_surer_than(readings: Readings, calm: Finding) -> Finding:
    """That there is no cause for alarm is said with low confidence where some of the causes could not be looked for."""
    if not readings.unknown:
        return calm
    unseen: dict[str, list[str]] = {}
    for name, why in readings.unknown.items():
        unseen.setdefault(why, []).append(name.replace("_", " "))
    missing = "; ".join(f"{', '.join(names)}: {why}" for why, names in unseen.items())
    return replace(calm, confidence="low", says=f"{calm.says} Unknown, and so not judged: {missing}.")


def _inconclusive(readings: Readings) -> Finding:
    evidence: tuple[Evidence, ...] = readings.rss_evidence()
    rise = readings.heavy_rise("rss_bytes")
    if rise is not None:
        evidence += rise.evidence("RSS")
    decides: str | None = None
    if readings.state == "outside":
        why = "There is no agent in this process: only the kernel's view is known."
        decides = "diagnostics run -- CMD"
    elif readings.state != "answering":
        why = f"The agent does not answer{readings.silent and ' ' + readings.silent}: only the kernel's view is known."
        if readings.before:
            why += f" When it last answered: {readings.before}"
    elif readings.window:
        why = f"A {readings.window} window is open: what it traces is not judged."
    elif "in_use_bytes" in readings.unread:
        grows = "grows" if rise is not None else "does not grow by enough to be sure of it"
        why = f"In-use memory is not known ({readings.unread['in_use_bytes']}); RSS {grows}."
        decides = _DECIDE if rise is not None else None
    elif readings.seen_from_outside is not None:
        why, decides = f"{readings.seen_from_outside[0]} grows, and the readings do not show why.", _DECIDE
    elif readings.bounded("in_use_bytes") is not None and open_questions(readings):
        return _undecided(readings, evidence)
    else:
        why = TOO_FEW
    return Finding("inconclusive", "low", why, evidence, next=decides)


def _undecided(readings: Readings, evidence: tuple[Evidence, ...]) -> Finding:
    """Growth is not seen, and not excluded either: how much there may be, and how long it takes to know."""
    open_series = open_questions(readings)
    evidence += tuple(slope_evidence(what, bound) for what, bound in open_series)
    what, worst = max(open_series, key=lambda each: each[1].high)
    waits = [bound.seconds_until(readings.matters) for _, bound in open_series]
    says = (
        f"Growth is neither seen nor excluded: {what} may grow by up to {an_hour(worst.high)} an hour, as far as "
        f"{worst.seconds:.0f} s of readings tell, and {an_hour(readings.matters)} would matter ({readings.why_it_matters})."
    )
    if None not in waits and (longest := max(wait or 0.0 for wait in waits)) <= _LONGEST_WAIT_SECONDS - worst.seconds:
        minutes = max(1, round(longest / 60))
        return Finding("inconclusive", "low", f"{says} About {minutes} min more of such readings decide.", evidence)
    says += " Waiting will not decide it soon; what two looks at the objects show will."
    return Finding("inconclusive", "low", says, evidence, next=_DECIDE)
