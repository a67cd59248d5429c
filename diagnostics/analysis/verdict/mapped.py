"""Checks of resident memory that grows in mapped files and shared memory, which no allocator hands out.

The kernel takes pages of files back when memory is short, so they are no cause for alarm. It cannot take shared memory back
(`multiprocessing.shared_memory`, a mapping of MAP_SHARED without a file, a file in a tmpfs): that needs its owner.
"""

from __future__ import annotations

from ..units import format_value
from .culprit.beyond import UnexplainedGrowth
from .culprit.handles import with_handles
from .finding import Finding
from .readings import MOST, Evidence, Readings

__all__ = ["files", "shared"]


def shared(readings: Readings) -> Finding | None:
    """Most of what RSS gained is shared memory."""
    rise = readings.heavy_rise("rss_bytes")
    more = None if rise is None else readings.gained("shared_bytes", rise.trend.seconds)
    if rise is None or more is None or more < MOST * rise.amount:
        return None
    says = f"RSS grows by {_text(rise.amount)}, {_text(more)} of it in shared memory, which no allocator handed out."
    evidence = (*rise.evidence("RSS"), Evidence("of it in shared memory", more, "bytes"))
    finding = _named(readings, Finding("shared_memory_growth", "high", says, evidence), more)
    return with_handles(UnexplainedGrowth(readings, rise, more, in_use=False), finding)


def files(readings: Readings) -> Finding | None:
    """Most of what RSS gained is pages of mapped files: mapped, and no shared memory."""
    rise = readings.heavy_rise("rss_bytes")
    if rise is None:
        return None
    mapped, in_shared = (readings.gained(f"{name}_bytes", rise.trend.seconds) for name in ("mapped", "shared"))
    if mapped is None or in_shared is None or mapped - in_shared < MOST * rise.amount:
        return None
    more = mapped - in_shared
    says = (
        f"RSS grows by {_text(rise.amount)}, {_text(more)} of it in pages of mapped files: the kernel takes them back when "
        "memory is short."
    )
    evidence = (*rise.evidence("RSS"), Evidence("of it in pages of mapped files", more, "bytes"))
    return _named(readings, Finding("mapped_files", "high", says, evidence), more)


def _named(readings: Readings, finding: Finding, more: float) -> Finding:
    """With what is mapped, where one file, or one folder of them, is known to have most of what was gained.

    How large it was before is not recorded: at most as large as all that was mapped when recording began.
    """
    largest = next(iter((readings.balance or {}).get("mapped") or ()), None)
    before = readings.first("mapped_bytes")
    if largest is None or before is None or largest["bytes"] - before < MOST * more:
        return finding
    count = "one mapping" if largest["mappings"] == 1 else f"{largest['mappings']:,} mappings"
    says = f"{finding.says} Of what is mapped, {largest['what']} has {_text(largest['bytes'])}, in {count}."
    return Finding(finding.word, finding.confidence, says, finding.evidence, culprit=largest["what"])


def _text(size: float) -> str:
    return format_value(round(size), "bytes")
