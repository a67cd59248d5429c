"""The verdict on one worker: the first cause that the readings show, what it stands on, and what to do next.

The law of this file: a verdict never says more than its readings. No readings are "inconclusive", and so is memory that
grows in a way that no check explains; what else was found beside the first cause is listed, not dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .finding import Finding
from .findings import CHECKS
from .readings import Evidence, Readings
from .remedies import REMEDIES

__all__ = ["Evidence", "Finding", "Readings", "Verdict", "verdict"]

SCHEMA = "highwater.verdict/1"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`found` is the verdict, `also` what other checks say, in their order."""

    found: Finding
    also: tuple[Finding, ...] = ()

    @property
    def word(self) -> str:
        return self.found.word

    @property
    def alarm(self) -> bool:
        return REMEDIES[self.found.word].alarm

    def to_json(self, url: str = "URL", worker: str | None = None) -> dict[str, Any]:
        """url: the monitor's address, for the command; worker: named in the command where there are several."""
        remedy = REMEDIES[self.word]
        command = remedy.command.replace("URL", url)
        if worker is not None and " capture " in command:
            command += f" --worker {worker}"
        return {
            "schema": SCHEMA,
            "verdict": self.word,
            "title": remedy.title,
            "alarm": self.alarm,
            "confidence": self.found.confidence,
            "says": self.found.says,
            "layer": self.found.layer,
            "streams": list(self.found.streams),
            "evidence": [evidence.to_json() for evidence in self.found.evidence],
            "next": command,
            "fix": remedy.fix,
            "docs": remedy.docs(self.word),
            "also": [{"verdict": finding.word, "says": finding.says} for finding in self.also],
        }


def verdict(readings: Readings) -> Verdict:
    """Judge one worker."""
    findings = [found for check in CHECKS if (found := check(readings)) is not None]
    alarms = [finding for finding in findings if REMEDIES[finding.word].alarm]
    if alarms:
        return Verdict(alarms[0], tuple(alarms[1:]))
    return Verdict(_no_surer_than(readings, findings[0])) if findings else Verdict(_inconclusive(readings))


def _no_surer_than(readings: Readings, calm: Finding) -> Finding:
    """That there is no cause for alarm is said with low confidence where some of the causes could not be looked for."""
    if not readings.unknown or REMEDIES[calm.word].alarm:
        return calm
    unseen: dict[str, list[str]] = {}
    for name, why in readings.unknown.items():
        unseen.setdefault(why, []).append(name.replace("_", " "))
    missing = "; ".join(f"{', '.join(names)}: {why}" for why, names in unseen.items())
    return replace(calm, confidence="low", says=f"{calm.says} Unknown, and so not judged: {missing}.")


def _inconclusive(readings: Readings) -> Finding:
    evidence: tuple[Evidence, ...] = ()
    if readings.rss is not None:
        evidence += (Evidence("RSS", readings.rss, "bytes"),)
    rise = readings.heavy_rise("rss_bytes")
    if rise is not None:
        evidence += rise.evidence("RSS")
    if readings.state == "outside":
        why = "There is no agent in this process: only the kernel's view is known."
    elif readings.state != "answering":
        why = f"The agent does not answer{readings.silent and ' ' + readings.silent}: only the kernel's view is known."
        if readings.before:
            why += f" When it last answered: {readings.before}"
    elif readings.window:
        why = f"A {readings.window} window is open: what it traces is not judged."
    elif "in_use_bytes" in readings.unread:
        grows = "grows" if rise is not None else "does not grow by enough to matter"
        why = f"In-use memory is not known ({readings.unread['in_use_bytes']}); RSS {grows}."
    elif rise is not None:
        why = "RSS grows, and the readings do not show why."
    elif readings.heavy_rise("private_bytes") is not None:
        why = "Private memory grows, and the readings do not show why."
    else:
        why = "There are too few readings since the warm-up to judge."
    return Finding("inconclusive", "low", why, evidence)
