"""Encodes an answer as JSON without keeping the GIL for as long as thousands of descriptors take.

`json.dumps` is one call into C. So a long list within an answer is encoded in slices, with rests between, and the rest of the
answer as it always is; the text is the same.
"""

from __future__ import annotations

from .reading_cache import rest_if_due, sliced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["encoded"]

# A list of so many numbers takes a twentieth of a millisecond.
_LONG = 500
# How deep long lists lie: version and result, the reading's parts, a part's fields, the routes in one.
_DEPTH = 5


def encoded(value: Any) -> str:
    """As `json.dumps` with the shortest separators. Keys of dictionaries that hold long lists must be strings."""
    import json

    if not _holds_long(value, _DEPTH):
        return json.dumps(value, separators=(",", ":"))
    if isinstance(value, list):
        slices = [json.dumps(part, separators=(",", ":"))[1:-1] for part in sliced(value)]
        return f"[{','.join(slices)}]"
    fields = []
    for name, each in value.items():
        rest_if_due()
        fields.append(f"{json.dumps(name)}:{encoded(each)}")
    return f"{{{','.join(fields)}}}"


def _holds_long(value: Any, depth: int) -> bool:
    if isinstance(value, list):
        return len(value) > _LONG
    return depth > 0 and isinstance(value, dict) and any(_holds_long(each, depth - 1) for each in value.values())
