"""The table of docs/field.md, and what stands below it, made from the results."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..services.environments import cache_folder
from .promises import BROKEN, KEPT, UNKNOWN, Report
from .table import HERE, Service

ROOT = HERE.parent.parent
BEGIN, END = "<!-- field: begin -->", "<!-- field: end -->"
_COLUMNS = (
    "service", "promises", "as without us", "time to ready / to stop, with us (alone)", "agents", "seen of 3 streams",
    "idle verdict", "verdict under load", "captures", "memory and CPU added, idle",
)  # fmt: skip
_CAPTURES = ("tasks", "objects", "retained", "tracemalloc", "memray", "heap", "bundle")
_ALIKE = ("stdout", "stderr", "signals", "leaves nothing", "environment", "time to")
_LONGEST = 600


@dataclass(frozen=True)
class Result:
    """One service's result: with which versions, when, at which load of the machine (one-minute average, before and after).
    `older` where the code has changed since."""

    service: Service
    report: Report
    versions: Mapping[str, str]
    python: str
    date: str
    load: tuple[float, float]
    seconds: float
    older: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            **self.report.to_json(), "versions": dict(self.versions), "python": self.python, "date": self.date,
            "load": list(self.load), "seconds": self.seconds,
        }  # fmt: skip

    @classmethod
    def from_json(cls, service: Service, told: dict[str, Any], *, older: bool = False) -> Result:
        return cls(
            service, Report.from_json(told), told["versions"], told["python"], told["date"], tuple(told["load"]),
            told["seconds"], older,
        )  # fmt: skip


def table(results: Sequence[Result]) -> str:
    rows = [_row(result) for result in results]
    return "\n".join(["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS), *rows])


def marked(page: str, results: Sequence[Result]) -> str:
    """`page` with everything between its two markers made anew."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    kept = sum(result.report.state == KEPT for result in results)
    first, last = min(result.date for result in results), max(result.date for result in results)
    loads = [load for result in results for load in result.load]
    said = (
        f"{kept} of {len(results)} services kept all promises. Measured from {first} to {last} UTC; {os.cpu_count()} cores, "
        f"load average {min(loads):.1f} to {max(loads):.1f}, Linux {platform.release()}, {platform.machine()}."
    )
    details = "\n".join(_details(result) for result in results)
    return f"{before}{BEGIN}\n{said}\n\n{table(results)}\n\n{details}\n{END}{after}"


def _row(result: Result) -> str:
    figures, report = result.report.figures, result.report
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    cells = [
        f"**{result.service.title}** {versions}; Python {result.python}{' (older code)' if result.older else ''}",
        _promises(report),
        _alike(report),
        " / ".join(_pair(figures.get(what), "s", 1) for what in ("ready", "stop")),
        figures.get("workers", "?"),
        figures.get("seen", "no port" if not result.service.stream else "?"),
        figures.get("idle verdict", "?"),
        figures.get("loaded verdict", "?"),
        ", ".join(f"{kind} {_capture(report, kind)}" for kind in _CAPTURES),
        _cost(figures),
    ]
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _promises(report: Report) -> str:
    broken, unknown = report.named(BROKEN), report.named(UNKNOWN)
    if report.state == KEPT:
        return f"kept ({len(report.checks)})"
    parts = [f"**broken**: {', '.join(broken)}"] if broken else []
    return "; ".join(parts + ([f"not measured: {', '.join(unknown)}"] if unknown else []))


def _alike(report: Report) -> str:
    found = {name: state for name, (state, _) in report.checks.items() if name.startswith(_ALIKE)}
    differs = [name for name, state in found.items() if state == BROKEN]
    if not found:
        return "?"
    return f"yes ({len(found)} checks)" if not differs else f"all but {', '.join(differs)}"


def _capture(report: Report, kind: str) -> str:
    state, _ = report.checks.get(f"capture {kind}", (UNKNOWN, ""))
    told = report.figures.get(f"capture {kind}", "?")
    return f"**{told}**" if state == BROKEN else str(told)


def _pair(pair: Sequence[float] | None, unit: str, digits: int) -> str:
    return "?" if pair is None else f"{pair[0]:.{digits}f} {unit} ({pair[1]:.{digits}f})"


def _cost(figures: Mapping[str, Any]) -> str:
    if "memory" not in figures:
        return "?"
    (with_us, alone), (cpu, cpu_alone) = figures["memory"], figures["cpu"]
    size, share = figures["monitor"]
    return (
        f"{with_us - alone:+.1f} MiB of {alone:.0f}, {cpu - cpu_alone:+.2f} % of a core of {cpu_alone:.2f}; "
        f"the monitor {size:.0f} MiB, {share:.1f} %"
    )


def _details(result: Result) -> str:
    before, after = result.load
    lines = [
        f"### {result.service.title}\n",
        f"Measured {result.date} UTC in {result.seconds:.0f} s; load average {before:.1f} before, {after:.1f} after.\n",
        "| promise | | seen |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {'**broken**' if state == BROKEN else state} | {_cell(says[:_LONGEST])} |"
        for name, (state, says) in result.report.checks.items()
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table; where the suite and its cache are on this machine is nobody's business."""
    for place, name in ((cache_folder(), "CACHE"), (ROOT, "CHECKOUT"), (Path.home(), "~")):
        text = text.replace(str(place), name)
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("http://", "http:&#47;&#47;")
