"""The kinds of captures: one file each, one table. A kind checks its options and knows how to take itself."""

from __future__ import annotations

from ...errors import UsageError
from . import memray, objects, retained, tasks, tracemalloc
from .base import Kind

__all__ = ["KINDS", "kind_named"]

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (memray.KIND, tracemalloc.KIND, objects.KIND, tasks.KIND, retained.KIND)
}


def kind_named(name: object) -> Kind:
    """Raises UsageError for a kind that is not in the table."""
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise UsageError(f"unknown kind {name!r}", remedy=f"one of {', '.join(KINDS)}", known=list(KINDS))
    return kind
