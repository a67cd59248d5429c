"""Whether a service under `diagnostics run` is as it is alone: output, environment, signals, times."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from .life import Life
from .promises import Report

# Twice as slow and two seconds more is still "as without us": figures are told beside. The monitor's own start takes about a
# second of a core, and as many times that as there is other work for each core.
_RATIO = 2.0
_SECONDS = 2.0
_OURS = {"PYTHONPATH", "DIAGNOSTICS_DIR", "DIAGNOSTICS_MONITOR_URL", "DIAGNOSTICS_AGENT"}
_MOST_LINES = 6
# What docs/any-service.md promises to say: how the service ended, where a signal ended it that it did not handle.
_DEATH = re.compile(r"^diagnostics: worker \d+ \(pid \d+\) has ended\. It was ended by SIG")
_BY_SIGNAL = re.compile(r"^ends with (12[89]|1[3-9]\d)$")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NUMBERS = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|0x[0-9a-f]+|\d+")


def normal_lines(text: str, folder: str, varies: Iterable[str]) -> list[str]:
    """Lines without what differs from run to run: folders, colours, numbers (process ids, ports, times, addresses), and the
    lines that the table says vary. Each is told once: how often a line comes depends on the clock."""
    lines = [_NUMBERS.sub("N", _ANSI.sub("", line.replace(folder, "FOLDER"))).rstrip() for line in text.splitlines()]
    left = [line for line in lines if line and not any(re.search(pattern, line) for pattern in varies)]
    return list(dict.fromkeys(left))


def compare(alone: Life, observed: Life, run: str, report: Report) -> None:
    """What one life alone and one observed, lived at the same time, tell."""
    for stream in ("stdout", "stderr"):
        _compare_output(alone, observed, stream, f"{stream} ({run})", report)
    report.judge(
        f"signals ({run})",
        alone.signals == observed.signals,
        f"{_told(observed.signals)}; alone {_told(alone.signals)}",
    )
    report.judge(f"leaves nothing behind ({run})", observed.left <= alone.left, _left(observed))
    _compare_times(alone, observed, run, report)
    _compare_variables(alone, observed, report)


def _compare_output(alone: Life, observed: Life, stream: str, name: str, report: Report) -> None:
    varies = observed.running.service.varies
    before = normal_lines(getattr(alone.running, stream), str(alone.running.folder), varies)
    text = getattr(observed.running, stream)
    if stream == "stderr":
        text = text.partition("\n")[2]  # the address of the monitor, which was looked at when it started
        if any(_BY_SIGNAL.match(came) for came in alone.signals.values()):
            text = "\n".join(line for line in text.splitlines() if not _DEATH.match(line))
    after = normal_lines(text, str(observed.running.folder), varies)
    more, less = [line for line in after if line not in before], [line for line in before if line not in after]
    differs = [f"+ {line}" for line in more] + [f"- {line}" for line in less]
    says = f"{len(after)} different lines, as alone"
    if differs:
        says = "; ".join(line[:160] for line in differs[:_MOST_LINES]) + (" ..." if len(differs) > _MOST_LINES else "")
    report.judge(name, not differs, says)


def _told(signals: dict[str, str]) -> str:
    return ", ".join(f"{name}: {came}" for name, came in signals.items())


def _left(observed: Life) -> str:
    return f"still there: {', '.join(sorted(observed.left))}" if observed.left else "nothing"


def _compare_times(alone: Life, observed: Life, run: str, report: Report) -> None:
    for what in ("ready", "stop"):
        without, with_us = alone.running.seconds.get(what), observed.running.seconds.get(what)
        name = f"time to {what} ({run})"
        if without is None or with_us is None:
            if without != with_us:
                report.judge(name, False, f"with us {_or_never(with_us)}, alone {_or_never(without)}")
            continue
        crowd = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        kept = with_us <= _RATIO * without + _SECONDS * crowd
        report.judge(name, kept, f"{with_us:.1f} s, alone {without:.1f} s")
        report.figures.setdefault(what, [with_us, without])


def _or_never(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


def _compare_variables(alone: Life, observed: Life, report: Report) -> None:
    before, after = alone.variables, observed.variables
    if not before or not after:
        report.unknown("environment", "the service's first process could not be read")
        return
    own = {str(life.running.folder) for life in (alone, observed)} | {
        str(life.running.port) for life in (alone, observed)
    }

    def value(variables: dict[str, str], name: str) -> str | None:
        told = variables.get(name)
        for word in sorted(own, key=len, reverse=True):
            told = told and told.replace(word, "OWN")
        return told

    changed = sorted(name for name in before.keys() | after.keys() if value(before, name) != value(after, name))
    report.judge("environment", set(changed) <= _OURS, f"changed: {', '.join(changed)}")
