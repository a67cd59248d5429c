"""Checks of what runs: asyncio tasks that outlive their streams, and threads that are started and never end.

A check accuses only with a number that it names, and names a culprit only where that accounts for at least half of the rise
until the capture that showed it. Growth that goes on after a capture is no reason to forget what the capture showed; where most
of it came after, the culprit is named with less confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .finding import Finding
from .readings import LITTLE, MOST, Evidence, Readings, Rise

__all__ = ["tasks", "threads"]

_MANY = 20
# Groups of which one has at least this share of another's tasks are as many of each.
_ALIKE = 0.8
# So many of them are told by name.
_NAMED = 4
# uvicorn's task for a request: there are as many as streams, and no leak of them is one of tasks.
_SERVING = "RequestResponseCycle.run_asgi"


def tasks(readings: Readings) -> Finding | None:
    """Unfinished tasks that grow while neither streams nor clients' connections do."""
    rise = readings.rise("tasks")
    if rise is None or rise.amount < _MANY:
        return None
    seconds = rise.trend.seconds
    if readings.follows_streams(rise.amount, seconds) or readings.follows_connections(rise.amount, seconds):
        return None
    evidence = [
        Evidence(f"unfinished tasks, more within {seconds:.0f} s", rise.amount, "count"),
        Evidence("unfinished tasks now", rise.trend.last or 0, "count"),
        *readings.streams_evidence(seconds),
    ]
    says = f"Unfinished tasks grow by {rise.amount:.0f} while open streams do not."
    capture = readings.captures.get("tasks") or {}
    then = _unfinished_at(capture)
    those = _largest(capture.get("top") or (), _until(rise, then))
    if not those:
        return Finding("orphan_tasks", "medium", says, tuple(evidence))
    largest = those[0]
    names = list(dict.fromkeys(_runs(row) for row in those))
    runs = ", ".join(names[:_NAMED])
    count, leaked = sum(row["count"] for row in those), sum(row.get("leaked") or 0 for row in those)
    evidence.append(Evidence(f"tasks in {runs} at the last capture", count, "count"))
    says += f" At the last capture {count} tasks ran {runs}"
    if len(names) > 1:
        says += f", as many of each (about {largest['count']}): they come together"
    orphan = all(row.get("orphan") for row in those)
    if orphan:
        says += ", and nothing awaits them"
    waits = largest.get("waits_in")
    if 2 * leaked >= count:
        evidence.append(Evidence("of these, tasks that nothing can wake", leaked, "count"))
        says += f"; {leaked} of them wait for what nothing alive can bring about"
    says += f", in {waits}." if waits and waits.partition(" ")[0] != names[0] else "."
    sure = (orphan or 2 * leaked >= count) and _until(rise, then) >= LITTLE * rise.amount
    return Finding(
        "orphan_tasks", "high" if sure else "medium", says, tuple(evidence), culprit=runs, path=waits or None
    )


def _unfinished_at(capture: Mapping[str, Any]) -> int | None:
    """The unfinished tasks at the time of a capture of tasks; None where it does not say."""
    states = capture.get("states")
    return None if states is None else sum(count for state, count in states.items() if state != "done")


def _until(rise: Rise, then: int | None) -> float:
    """How much of the rise had come when a capture counted `then` of what rises; all of it where that is not known."""
    whole = (rise.trend.slope or 0.0) * rise.trend.seconds
    if then is None or rise.trend.last is None or whole <= 0:
        return rise.amount
    since = max(0.0, rise.trend.last - then)
    return rise.amount * max(0.0, 1 - since / whole)


def _runs(row: Mapping[str, Any]) -> str:
    return str(row.get("task") or row.get("function"))


def _largest(rows: Any, rise: float) -> list[Mapping[str, Any]]:
    """The groups of unfinished tasks, other than requests, that account for most of the rise."""
    return _most([row for row in rows if row.get("state") != "done" and row.get("task") != _SERVING], rise)


def _most(rows: Sequence[Mapping[str, Any]], rise: float) -> list[Mapping[str, Any]]:
    """The group that accounts for most of the rise until its capture; or those that together do and are as many each: what is
    started for each request is often several tasks or threads."""
    groups = sorted(rows, key=lambda row: -row["count"])
    if rise < _MANY:  # most of it came after the capture, which shows what was there before
        return []
    if not groups or groups[0]["count"] < _MANY:
        return []
    if groups[0]["count"] >= MOST * rise:
        return groups[:1]
    alike = [row for row in groups if row["count"] >= _ALIKE * groups[0]["count"]]
    return alike if sum(row["count"] for row in alike) >= MOST * rise else []


def threads(readings: Readings) -> Finding | None:
    """Threads that grow while streams do not: one is started for each request, and waits for something for ever."""
    rise = readings.rise("threads")
    if rise is None or rise.amount < _MANY or readings.follows_threads(rise.amount, rise.trend.seconds):
        return None
    evidence = [
        Evidence(f"threads, more within {rise.trend.seconds:.0f} s", rise.amount, "count"),
        Evidence("threads now", rise.trend.last or 0, "count"),
        *readings.streams_evidence(rise.trend.seconds),
    ]
    says = f"Threads grow by {rise.amount:.0f} while open streams do not: each has a stack, and keeps what its frames hold."
    capture = readings.captures.get("tasks") or {}
    until = _until(rise, capture.get("threads"))
    those = _most(capture.get("thread_groups") or (), until)
    if not those:
        return Finding("thread_growth", "medium", says, tuple(evidence))
    runs = ", ".join(list(dict.fromkeys(str(row["runs"]) for row in those))[:_NAMED])
    count, waits = sum(row["count"] for row in those), those[0]["waits_in"]
    evidence.append(Evidence(f"threads that run {runs}, at the last capture", count, "count"))
    says += f" At the last capture {count} of them ran {runs}, in {waits}."
    sure = until >= LITTLE * rise.amount
    return Finding("thread_growth", "high" if sure else "medium", says, tuple(evidence), culprit=runs, path=waits)
