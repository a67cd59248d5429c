"""The kinds of captures: one file each, and their table. A kind has checks of its options and the function that takes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ....analysis.cost import Method
from ....errors import UsageError
from . import memray, objects, retained, tasks, tracemalloc
from .kind import Kind

__all__ = ["KINDS", "cheaper_than", "kind_named"]

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (memray.KIND, tracemalloc.KIND, objects.KIND, tasks.KIND, retained.KIND)
}


def kind_named(name: object) -> Kind:
    """The kind of this name. Raises UsageError for a name that is not in the table."""
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise UsageError(f"unknown kind {name!r}", remedy=f"one of {', '.join(KINDS)}", known=list(KINDS))
    return kind


# Captures that show where memory is, each more expensive than the one after it: (kind, options).
_CHEAPER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("memray", {}),
    ("tracemalloc", {"frames": 1}),
    ("objects", {}),
    ("tasks", {}),
)


def cheaper_than(refused: Kind, options: Mapping[str, Any]) -> Iterator[tuple[str, Kind, Method]]:
    """Captures that may be cheaper than the refused one, the most informative first: (command line, kind, method)."""
    seconds = options.get("seconds") or 0.0
    window = {"seconds": seconds} if seconds else {}
    for name, other in _CHEAPER:
        if name == refused.name and not other:
            continue
        kind = KINDS[name]
        words = [f"--{option} {value:g}" for option, value in {**other, **window}.items()]
        command = " ".join(["diagnostics capture URL --kind", name, *words])
        yield command, kind, kind.method(kind.checked({**other, **window}))
