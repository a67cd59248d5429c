"""Checks of resident memory that grows in mapped files and shared memory, which no allocator hands out.

The kernel takes pages of files back when memory is short, so they are no cause for alarm. It cannot take shared memory back
(`multiprocessing.shared_memory`, a mapping of MAP_SHARED without a file, a file in a tmpfs): that needs its owner.
"""

from __future__ import annotations

from ..units import format_value
from .finding import Finding
from .readings import MOST, Evidence, Readings, Rise

__all__ = ["files", "shared"]


def shared(readings: Readings) -> Finding | None:
    """Shared memory: RSS grows by mapped pages, and enough of what is mapped is shared memory."""
    rise = _rise(readings)
    if rise is None:
        return None
    more, in_shared = rise.more, _shared_bytes(readings)
    if in_shared is None or in_shared < MOST * more:
        return None
    now = Evidence("in shared memory now", in_shared, "bytes")
    says = f"RSS grows by {_text(rise.of.amount)}, {_text(more)} of it in shared memory, which no allocator handed out."
    return _named(readings, Finding("shared_memory_growth", "high", says, (*rise.evidence(), now)), more)


def files(readings: Readings) -> Finding | None:
    """Files: RSS grows by mapped pages, and what is mapped is known not to be shared memory."""
    rise = _rise(readings)
    if rise is None:
        return None
    more, in_shared = rise.more, _shared_bytes(readings)
    if in_shared is None or in_shared >= MOST * more:
        return None
    says = (
        f"RSS grows by {_text(rise.of.amount)}, {_text(more)} of it in pages of mapped files: the kernel takes them back when "
        "memory is short."
    )
    return _named(readings, Finding("mapped_files", "high", says, rise.evidence()), more)


class _MappedRise:
    """RSS that grows, with the bytes that mapped files and shared memory gained in the same time."""

    def __init__(self, of: Rise, more: float) -> None:
        self.of, self.more = of, more

    def evidence(self) -> tuple[Evidence, ...]:
        return (*self.of.evidence("RSS"), Evidence("of it in mapped files and shared memory", self.more, "bytes"))


def _rise(readings: Readings) -> _MappedRise | None:
    """None where RSS does not grow, or mapped pages are less than most of what it gained."""
    rise = readings.heavy_rise("rss_bytes")
    more = None if rise is None else readings.gained("mapped_bytes", rise.trend.seconds)
    if rise is None or more is None or more < MOST * rise.amount:
        return None
    return _MappedRise(rise, more)


def _shared_bytes(readings: Readings) -> int | None:
    size = ((readings.balance or {}).get("of_which") or {}).get("shared_memory")
    return None if size is None else int(size)


def _named(readings: Readings, finding: Finding, more: float) -> Finding:
    """With what is mapped, where one file, or one folder of them, has most of what was gained."""
    first = next(iter((readings.balance or {}).get("mapped") or ()), None)
    if first is None or first["bytes"] < MOST * more:
        return finding
    count = "one mapping" if first["mappings"] == 1 else f"{first['mappings']:,} mappings"
    says = f"{finding.says} Of what is mapped, {first['what']} has {_text(first['bytes'])}, in {count}."
    return Finding(finding.word, finding.confidence, says, finding.evidence, culprit=first["what"])


def _text(size: float) -> str:
    return format_value(round(size), "bytes")
