"""The kinds of captures: one file each, one table. A kind checks its options and knows how to take itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...analysis.cost import Method
from ...errors import UsageError
from . import memray, objects, retained, tasks, tracemalloc
from .base import Kind

__all__ = ["KINDS", "cheaper_than", "kind_named"]

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (memray.KIND, tracemalloc.KIND, objects.KIND, tasks.KIND, retained.KIND)
}


def kind_named(name: object) -> Kind:
    """Raises UsageError for a kind that is not in the table."""
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise UsageError(f"unknown kind {name!r}", remedy=f"one of {', '.join(KINDS)}", known=list(KINDS))
    return kind


# What else tells where memory is, each dearer than the one after it; as a request, and as options of `diagnostics capture`.
_CHEAPER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("memray", {}),
    ("tracemalloc", {"frames": 1}),
    ("objects", {}),
    ("tasks", {}),
)


def cheaper_than(refused: Kind, options: Mapping[str, Any]) -> Iterator[tuple[str, Method]]:
    """(command line, how it looks) of captures that a service may bear which cannot bear this one, the most telling first."""
    seconds = options.get("seconds") or 0.0
    for name, other in _CHEAPER:
        kind = KINDS[name]
        window = {"seconds": seconds} if seconds else {}
        method = kind.method(kind.checked({**other, **window}))
        words = [f"--{option} {value}" for option, value in other.items()]
        if name != refused.name or other:
            yield (
                " ".join(
                    ["diagnostics capture URL --kind", name, *words, *([f"--seconds {seconds:g}"] if window else [])]
                ),
                method,
            )
