"""The bound of the container that holds what grows: a deque with `maxlen`, a cache of functions with `maxsize`, a list whose
places were made at once.

A container that fills at a steady pace looks like a leak in every trend, for as long as it fills. Where it says itself how
many entries it takes at most, that growth ends there, and with how many bytes can be reckoned.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...units import format_value
from .beyond import UnexplainedGrowth
from .container import container_of

__all__ = ["Bound", "bound_of"]

# A container's entries are what grows where about as many came as it can have got: others of a type come and go elsewhere.
_ALIKE = 1.5


@dataclass(frozen=True, slots=True)
class Bound:
    """A container of `length` entries that takes `most`, is full in `seconds` at its pace, and has then `bytes` more."""

    length: int
    most: int
    seconds: float
    bytes: float

    @property
    def says(self) -> str:
        more = format_value(round(self.bytes), "bytes")
        minutes = self.seconds / 60
        when = f"{self.seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min"
        return (
            f"That container takes {self.most:,} entries at most and had {self.length:,}: at this pace it is full in {when}, "
            f"with {more} more."
        )


def bound_of(grown: UnexplainedGrowth, path: str) -> Bound | None:
    """The bound of the container with most entries on `path`, where the type that grew most is its entries; None where it has
    none, or where an entry leads on to what grew: how many of these came is then no number of entries.

    Also where it is full already: what grows then is not the number of its entries.
    """
    container = container_of(path)
    if container is None or container.most is None or not container.is_last or not grown.grown:
        return None
    length, most = container.length, container.most
    entries = grown.grown[0].get("count_delta") or 0
    if not 0 < entries <= _ALIKE * length or length >= most:
        return None
    seconds, each = grown.apart / entries, grown.basis / entries
    return Bound(length, most, (most - length) * seconds, (most - length) * each)
