"""Checks of in-use memory that grows by more than open streams explain: is it Python's objects, or somebody else's?

    retained_objects   what Python is seen to hold accounts for at least half of the growth; certain where a census shows one
                       type or one container that does, and that is named as the culprit
    native_growth      what Python is seen to hold accounts for at most a quarter; certain where a census says so and malloc
                       handed the rest out
    uncollected_garbage  most of what grew is in cycles, and the collector is off, or keeps what it finds
    waiting_garbage    most of what grew is in cycles that the collector has not come to yet: no alarm
    memory_growth      it grows, and the readings do not decide: the capture that would is named

What accounts for less than half of the growth is never named as its cause, nor a container of less than two thirds of what
Python's objects have of it. Where objects do not show who is to blame, because
nothing of Python's holds what grows, the line that allocates it does: the window that tells it is the next command.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..units import format_value
from .culprit.beyond import UnexplainedGrowth, growth
from .culprit.bound import bound_of
from .culprit.handles import with_handles
from .culprit.holder import Holder, holder_of, lost_in_c, share, ways_of
from .culprit.lines import line_of
from .finding import Finding
from .readings import MOST, Evidence, Readings

__all__ = ["garbage", "native", "retained", "uncollected", "undecided"]

# What tells which line allocates: memray sees C as well, and must be installed in the service; tracemalloc sees what
# comes from Python's allocators, and is in every Python.
_BY_MEMRAY: Final = "diagnostics capture URL --kind memray --seconds 10 --native"
_BY_TRACEMALLOC: Final = "diagnostics capture URL --kind tracemalloc --seconds 10"
_INSTALL: Final = "pip install memray"
# Of what Python's objects gained: see `_holder_of_objects`.
_OF_OBJECTS: Final = 2 / 3
# A container with a bound that is full within an hour, and then takes at most half of the room that there is below the limit;
# or, without a limit, half as much as is resident now.
_SOON: Final = 3600.0
_FITS: Final = 0.5


def uncollected(readings: Readings) -> Finding | None:
    """Objects in cycles that nothing reaches, and no collector that frees them: it is off and not called, or keeps them."""
    grown = growth(readings, garbage=True)
    if grown is None or not grown.is_garbage:
        return None
    if readings.saved is not None:
        return _saved(grown, readings.saved)
    if not _is_never_collected(grown):
        return None
    says = (
        f"Memory rises by {grown.text}, and most of what grew is garbage in cycles, which only Python's collector frees: it "
        f"is switched off, and nobody has called it in {grown.seconds:.0f} s."
    )
    waiting = Evidence("of what grew, in cycles that nothing reaches", grown.waiting, "bytes")
    return Finding("uncollected_garbage", "high", says, (*grown.evidence(), waiting))


def _saved(grown: UnexplainedGrowth, count: int) -> Finding:
    """Garbage that gc.DEBUG_SAVEALL keeps in gc.garbage, or will when the collector has come to it."""
    says = (
        f"Memory rises by {grown.text}, and most of what grew is garbage that Python's collector keeps in gc.garbage instead "
        f"of freeing it, {count:,} objects by now: gc.set_debug was called with gc.DEBUG_SAVEALL or gc.DEBUG_LEAK."
    )
    evidence = (
        *grown.evidence(),
        Evidence("of what grew, in gc.garbage", grown.saved, "bytes"),
        Evidence("of what grew, in cycles that nothing reaches", grown.waiting, "bytes"),
    )
    return Finding("uncollected_garbage", "high", says, evidence, culprit="gc.garbage")


def _is_never_collected(grown: UnexplainedGrowth) -> bool:
    """Whether the collector does not run by itself, and the service has not called it while memory grew."""
    runs = [grown.readings.gained(f"gc_collections_{generation}", grown.seconds) for generation in (1, 2)]
    return grown.readings.collects is False and runs == [0.0, 0.0]


def garbage(readings: Readings) -> Finding | None:
    """Objects in cycles that nothing reaches, and that the collector has not come to yet."""
    grown = growth(readings, garbage=True)
    if grown is None or not grown.is_garbage or readings.saved is not None or _is_never_collected(grown):
        return None
    says = (
        f"Memory rises by {grown.text}, and most of what grew is garbage in cycles that waits for Python's collector: "
        "it is freed when that runs, and no leak unless it no longer runs."
    )
    waiting = Evidence("of what grew, in cycles that nothing reaches", grown.waiting, "bytes")
    return Finding("waiting_garbage", "medium", says, (*grown.evidence(), waiting))


def retained(readings: Readings) -> Finding | None:
    """Python's objects account for most of the growth."""
    grown = growth(readings)
    if grown is None or grown.in_python is not True or grown.is_of_streams:
        return None
    says = f"Objects of Python's grow by {grown.text} beyond what open streams explain."
    if not grown.in_use:
        says = f"RSS grows by {grown.text} beyond what open streams explain, and Python's objects with it."
    evidence = tuple(grown.evidence())
    if grown.paused:
        says += (
            f" But it did not in the {grown.census['seconds']:g} s of the last objects capture: it may have stopped."
        )
        return Finding("retained_objects", "low", says, evidence, next="diagnostics status URL --watch")
    finding = Finding("retained_objects", "medium", says, evidence)
    first = grown.grown[0] if grown.grown else None
    if grown.of_threads and grown.of_threads >= MOST * grown.basis:
        finding = _of_threads(grown, finding)
    elif first is not None and first["bytes_delta"] - (first.get("margin_bytes") or 0) >= MOST * grown.basis:
        finding = _of_type(grown, finding)
    elif grown.census:
        finding = _of_holder(grown, finding)
    return _outdated(finding) if grown.slowed else _filling(grown, finding)


def _filling(grown: UnexplainedGrowth, finding: Finding) -> Finding:
    """Where the container has a bound, with what it comes to; and nobody is accused of one that is full soon and fits."""
    bound = bound_of(grown, finding.path) if finding.path is not None else None
    if bound is None:
        return finding
    readings = grown.readings
    finding = replace(finding, says=f"{finding.says} {bound.says}")
    if bound.seconds > _SOON or bound.bytes > _FITS * (readings.rss or 0 if readings.room is None else readings.room):
        return finding
    return replace(finding, confidence="low", says=f"{finding.says} That fits.", next="diagnostics status URL --watch")


def _of_threads(grown: UnexplainedGrowth, finding: Finding) -> Finding:
    """Most of it is what single threads have for themselves: no census sees it, and the line that allocates it may be known."""
    says = (
        f"{finding.says} At the last capture most was data of single threads (threading.local, or a context variable that is "
        "set in a thread), which no reading in a forked child can see."
    )
    more = Evidence("more in data of single threads, at the last capture", grown.of_threads, "bytes")
    culprit = "data of single threads"
    return _of_line(grown, replace(finding, says=says, evidence=(*finding.evidence, more), culprit=culprit))


def _outdated(finding: Finding) -> Finding:
    """What a capture showed while memory grew at another pace: told, and nobody is accused of what grows now."""
    says = (
        f"{finding.says} Since then memory grows at less than half of that pace: what grows now may be something else."
    )
    return replace(finding, confidence="low", says=says, culprit=None, path=None, unheld=False, outdated=True)


def _of_type(grown: UnexplainedGrowth, finding: Finding) -> Finding:
    """One type accounts for most of it: with the way that keeps it alive, or the line that allocates it."""
    first = grown.grown[0]
    name = str(first.get("type") or first.get("function"))
    more = Evidence(f"more in objects of type {name}, at the last capture", first["bytes_delta"], "bytes")
    finding = replace(finding, culprit=name, evidence=(*finding.evidence, more))
    says = f"{finding.says} At the last capture most was {name}"
    ways = ways_of(grown.census, first)
    if first.get("unheld"):
        says += ", and no container of Python's holds it: C code keeps it, or has lost it."
        return _of_line(grown, replace(finding, says=says, unheld=True))
    if share(ways, "lost") >= MOST:
        return _of_line(grown, replace(finding, says=f"{says}, {ways[0]['path']}.", unheld=True))
    way = ways[0] if ways else None
    if way is not None and way.get("root") != "unknown" and share([way], None, ways) >= MOST:
        return replace(finding, confidence="high", says=f"{says}, kept alive by {way['path']}.", path=str(way["path"]))
    holder = holder_of(grown.census, [first], MOST * grown.basis)
    if holder is not None:
        return replace(finding, says=f"{says}, held by {holder.path}.", path=holder.path)
    if way is None or way.get("root") == "unknown":
        return _of_line(grown, replace(finding, says=f"{says}."))
    return replace(finding, says=f"{says}, kept alive by {way['path']}.", path=str(way["path"]))


def _of_holder(grown: UnexplainedGrowth, finding: Finding) -> Finding:
    """Several types do together: the container that holds them, or the line that allocates them."""
    holder = holder_of(grown.census, grown.grown, MOST * grown.basis) or _holder_of_objects(grown)
    if holder is None:
        lost = lost_in_c(grown.census, grown.grown)
        if lost < MOST * grown.basis:
            return _of_line(grown, finding)
        says = (
            f"{finding.says} At the last capture most was held by references that no object has: C code keeps it, or has "
            "lost it."
        )
        more = Evidence("of what grew, held by no object", lost, "bytes")
        return _of_line(grown, replace(finding, says=says, evidence=(*finding.evidence, more), unheld=True))
    types = f"{', '.join(holder.types[:3])}"
    more = Evidence(f"more in objects held by {holder.path}, at the last capture", holder.bytes, "bytes")
    says = f"{finding.says} At the last capture most was held by {holder.path} ({types})."
    return replace(
        finding,
        says=says,
        evidence=(*finding.evidence, more),
        culprit=holder.name,
        path=holder.path,
        unheld=holder.in_c,
    )


def _holder_of_objects(grown: UnexplainedGrowth) -> Holder | None:
    """The container of two thirds of what Python's objects gained, where these are at least half of the growth: objects of C
    extensions have memory of their own beside them, which no census adds to them."""
    if not grown.sees_most:
        return None
    gained = sum(row["bytes_delta"] for row in grown.grown if not row.get("unheld"))
    return holder_of(grown.census, grown.grown, _OF_OBJECTS * gained) if gained else None


def _of_line(grown: UnexplainedGrowth, finding: Finding) -> Finding:
    """What no container explains: the line that allocates it, or the command that shows it."""
    line = line_of(grown.readings, grown.per_second)
    if line is None:
        says = f"{finding.says} Which line allocates it, the next command shows."
        return replace(finding, says=says, next=_BY_TRACEMALLOC)
    more = Evidence(f"still held of what {line.name} allocated in the last {line.kind} window", line.bytes, "bytes")
    says = f"{finding.says} In the last {line.kind} window {line.says}."
    return replace(
        finding, says=says, evidence=(*finding.evidence, more), culprit=finding.culprit or line.name, path=line.name
    )


def native(readings: Readings) -> Finding | None:
    """Python's objects account for little of the growth, or it is in mappings of neither allocator."""
    grown = growth(readings)
    if grown is None:
        return _mapped(readings)
    if grown.in_python is not False:
        return None
    handed_out = readings.gained("malloc_live_bytes", grown.seconds)
    agree = grown.seen is not None and handed_out is not None and handed_out >= MOST * grown.amount
    why = (
        "Python's objects account for at most a quarter of it"
        if grown.census
        else "Python's own blocks do not explain it"
    )
    says = f"{'In-use memory' if grown.in_use else 'RSS'} grows by {grown.text}; {why}."
    evidence = grown.evidence()
    if handed_out is not None:
        evidence.append(Evidence("more handed out by malloc", handed_out, "bytes"))
    finding = Finding("native_growth", "high" if agree else "medium", says, tuple(evidence), unheld=grown.in_no_object)
    finding = _with_line(readings, finding, grown.per_second, of_pythons=grown.by_pythons_allocators)
    return finding if finding.culprit is not None else with_handles(grown, finding)


def _with_line(readings: Readings, finding: Finding, per_second: float, *, of_pythons: bool) -> Finding:
    """With the line of Python that it is allocated below, by a window of memray's; else with what shows that.

    of_pythons   whether the growth is in blocks of Python's allocators, which tracemalloc sees as well
    """
    line = line_of(readings, per_second)
    if line is not None:
        more = Evidence(f"still held of what {line.name} allocated in the last {line.kind} window", line.bytes, "bytes")
        says = f"{finding.says} In the last {line.kind} window {line.says}."
        return replace(
            finding, says=says, evidence=(*finding.evidence, more), culprit=line.name, path=line.native or None
        )
    if readings.memray is not False:
        return finding
    if of_pythons:
        return replace(finding, next=_BY_TRACEMALLOC)
    says = (
        f"{finding.says} Which library allocates it is not known: memray would show it, and is not installed in the "
        "service."
    )
    return replace(finding, says=says, next=_INSTALL)


def undecided(readings: Readings) -> Finding | None:
    """It grows, and what is known does not tell whose it is."""
    grown = growth(readings)
    if grown is None or grown.in_python is not None:
        return None
    if grown.sees_little:
        why = "the last objects capture shows little of it, but memory did not grow in its time as it does else"
    elif grown.seen is not None:
        why = f"Python's objects account for {grown.seen:.0%} of it, neither most nor little"
    elif grown.blocks is None:
        why = "Python's large blocks are not counted here, so that nothing tells whether it is Python's"
    else:
        why = "what is read without a capture does not tell whether it is Python's"
    what = "In-use memory" if grown.in_use else "RSS"
    finding = Finding("memory_growth", "medium", f"{what} grows by {grown.text}; {why}.", tuple(grown.evidence()))
    return _of_line(grown, finding) if grown.seen is not None else finding


def _mapped(readings: Readings) -> Finding | None:
    """RSS grows and neither allocator has handed out more: memory that was mapped behind their backs."""
    rise = readings.heavy_rise("rss_bytes")
    inside = readings.trend("in_use_bytes")
    if rise is None or inside is None or inside.state == "unknown" or not readings.mapped_elsewhere(rise.amount):
        return None
    evidence = (*rise.evidence("RSS"), Evidence("part other", readings.part("other") or 0, "bytes"))
    says = f"RSS grows by {format_value(round(rise.amount), 'bytes')} in mappings of neither allocator."
    finding = Finding("native_growth", "medium", says, evidence)
    finding = _with_line(readings, finding, rise.trend.slope or 0.0, of_pythons=False)
    if finding.culprit is not None:
        return finding
    return with_handles(UnexplainedGrowth(readings, rise, rise.amount, in_use=False), finding)
