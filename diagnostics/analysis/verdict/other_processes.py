"""Checks of memory that no look at one living process shows: in its copies of shared pages, its children, its predecessors.

A check accuses only with a number that it names; see findings.py.
"""

from __future__ import annotations

from statistics import median

from ..units import format_value
from .child import Child
from .finding import Finding
from .readings import MIB, MOST, Evidence, Readings, Rise

__all__ = ["children", "copied_pages", "recycling"]

# A preloaded worker always copies some: reference counts are written where objects are only read.
_COPIED_HELD, _COPIED_SHARE = 32 * MIB, 0.25


def copied_pages(readings: Readings) -> Finding | None:
    """Pages that were shared with the parent and are now this process's own, while RSS tells nothing of it."""
    held = _copied(*readings.drifts_of("private_bytes", "rss_bytes"))
    rise = readings.heavy_rise("private_bytes")
    rising = _copied(rise.amount, readings.gained("rss_bytes", rise.trend.seconds)) if rise is not None else None
    standing = held is not None and held >= max(_COPIED_HELD, _COPIED_SHARE * (readings.rss or 0))
    # A small part of what became private is within the error of two slopes, and no cause of the rest.
    least = max(readings.least_growth, MOST * rise.amount) if rise is not None else 0.0
    if not standing and (rising is None or rising < least):
        return None
    copied = held if standing and held is not None else rising or 0.0
    # When all others that had the pages are gone they are private as well, and nothing was copied: the sum does not rise then.
    whole = readings.drift("whole_pss_bytes")
    if whole is not None and whole < copied / 2:
        return None
    evidence = [Evidence("shared pages that are private now", copied, "bytes")]
    for name, what in (("private_bytes", "private now"), ("rss_bytes", "RSS")):
        points = readings.series.get(name, ())
        if points:
            evidence.append(Evidence(what, points[-1][1], "bytes"))
    if whole is not None:
        evidence.append(Evidence("PSS of all processes of the service, more by", whole, "bytes"))
    says = (
        f"{format_value(round(copied), 'bytes')} of pages that this process shared with its parent have turned private "
        "(copy-on-write): its RSS does not show it, the memory of the service does."
    )
    return Finding("copy_on_write", "high" if whole is not None else "medium", says, tuple(evidence))


def _copied(private: float | None, rss: float | None) -> float | None:
    """How much of what became private was resident before, and so was shared."""
    return None if private is None or rss is None else private - max(0.0, rss)


def children(readings: Readings) -> Finding | None:
    """Memory that grows in processes which this one has started and which have no agent."""
    for name, what in (("children_pss_bytes", "PSS"), ("children_rss_bytes", "RSS")):
        trend = readings.trend(name)
        if trend is None or trend.state == "unknown":
            continue  # not to be read, or read too seldom as yet: RSS is read at each look
        rise = readings.heavy_rise(name)
        if rise is None:
            return None
        seconds = rise.trend.seconds
        more = readings.gained("children", seconds) or 0.0
        evidence = [*rise.evidence(f"{what} of its children"), Evidence("more children in this time", more, "count")]
        if rise.trend.last is not None:
            evidence.append(Evidence(f"{what} of its children now", rise.trend.last, "bytes"))
        amount = format_value(round(rise.amount), "bytes")
        culprit, of_it = _child_that_grows(readings, rise, what)
        if culprit is None:
            says = f"Memory grows by {amount} in child processes of this worker"
        else:
            says = f"Memory grows by {amount} in child processes of this worker, most of it in {culprit}"
            evidence.append(Evidence(f"of it in {culprit}", of_it, "bytes"))
        says += ". They have no agent: what holds it is not seen from here."
        return Finding("child_growth", "high" if what == "PSS" else "medium", says, tuple(evidence), culprit=culprit)
    return None


def _child_that_grows(readings: Readings, rise: Rise, what: str) -> tuple[str | None, float]:
    """The child, or the children that run the same, with at least half of the growth, and how much they have of it."""
    start = rise.trend.since or 0.0
    gains = sorted(((child.gained(what, start), child) for child in readings.offspring), key=lambda each: -each[0])
    if gains and gains[0][0] >= MOST * rise.amount:
        return gains[0][1].name, gains[0][0]
    by_command: dict[str, list[tuple[float, Child]]] = {}
    for gain, child in gains:
        by_command.setdefault(child.command, []).append((gain, child))
    for command, those in by_command.items():
        together = sum(gain for gain, _ in those)
        if together >= MOST * rise.amount:
            first = ", ".join(str(child.pid) for _, child in those[:3])
            return f"{len(those)} processes of {command} (pid {first}{', ...' if len(those) > 3 else ''})", together
    return None, 0.0


def recycling(readings: Readings) -> Finding | None:
    """A worker that is replaced before its growth shows: each of its lives grows."""
    if not readings.recycled:
        return None
    lasts = median(life.seconds for life in readings.lives)
    counted = [life.finished for life in readings.lives if life.finished]
    for name, what in (("in_use_bytes", "in use"), ("rss_bytes", "RSS")):
        rise = readings.rise(name)
        each = (rise.trend.slope or 0.0) * lasts if rise is not None else 0.0
        if rise is None or each < readings.least_growth:
            continue
        after = f"{lasts:.0f} s" + (f" and {median(counted):.0f} finished streams" if counted else "")
        says = f"Each life of this worker grows by {format_value(round(each), 'bytes')} until it is replaced after {after}."
        evidence = (
            Evidence(f"{what}, growth of one life", each, "bytes"),
            Evidence(f"{what}, slope within lives", rise.trend.slope or 0.0, "bytes a second"),
            Evidence("lives that were judged", len(readings.lives) + 1, "count"),
            Evidence("a life lasts", lasts, "seconds"),
        )
        return Finding("recycled_growth", "high" if name == "in_use_bytes" else "medium", says, evidence)
    return None
