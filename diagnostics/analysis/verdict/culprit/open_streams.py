"""What open streams alone keep alive of what grew, by an objects capture: it is buffered for them, and freed as they end.

The capture says of each sample that nothing but an open stream leads to whether that is so, and which stream it is. What a
module, a background task or a thread leads to as well is retained, whoever uses it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..readings import MOST
from .holder import Holder, as_the_traced, holder_of, share, ways_of

__all__ = ["STREAM", "HeldByStreams", "held_by_streams"]

# The root of such ways.
STREAM = "stream"
# A function with its file and line on a way.
_FUNCTION = re.compile(r"\S+ \([^()]+:\d+\)")


@dataclass(frozen=True, slots=True)
class HeldByStreams:
    """bytes    of what grew, in objects that nothing but open streams keeps alive
    ids      of the streams whose objects were among the samples
    samples  how many samples those were: where they are not more than the streams, there may be more streams
    holder   the container of most of these bytes; None where it is several
    """

    bytes: float
    ids: tuple[str, ...]
    samples: int
    holder: Holder | None

    @property
    def function(self) -> str | None:
        """The function that has the container among its locals, with its file and line."""
        path = self.holder.path if self.holder is not None else ""
        return next((part for part in reversed(path.split(" -> ")) if _FUNCTION.fullmatch(part)), None)


def held_by_streams(census: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> HeldByStreams:
    """Of these rows of the census, which grew, what open streams alone keep alive."""
    alike = as_the_traced(census, rows)
    of_rows = [(row, ways_of(census, row)) for row in rows]
    ways = [way for _, those in of_rows for way in those if way.get("root") == STREAM]
    held = float(alike * sum(row["bytes_delta"] * share(those, STREAM) for row, those in of_rows))
    ids = dict.fromkeys(str(each) for way in ways for each in way.get("streams") or ())
    holder = holder_of(census, rows, MOST * held, root=STREAM) if held > 0 else None
    return HeldByStreams(held, tuple(ids), sum(way["samples"] for way in ways), holder)
