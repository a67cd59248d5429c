"""The sampled blocks of a table, kept as columns: one array for each field, one place for each block.

A full table has 32,768 of them and is read every few seconds. So who only counts them goes through the columns, and a row is
made of a block only where somebody asks for one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

__all__ = ["LiveBlocks", "Row"]

# The place of the stack in `HeapTable.sites`, bytes, seconds after sampling began, place in the file.
Row = tuple[int, int, float, int]


class LiveBlocks(Sequence[Row]):
    """Blocks that are alive.

    owner   of each the place of its stack, plus one, as the file has it
    size    bytes
    born    tenths of a second after sampling began
    place   in the file
    """

    __slots__ = ("born", "owner", "place", "size")

    def __init__(self, owner: array[int], size: array[int], born: array[int], place: Sequence[int]) -> None:
        self.owner, self.size, self.born, self.place = owner, size, born, place

    @classmethod
    def of(cls, rows: Iterable[Row]) -> LiveBlocks:
        """Of the rows themselves, times to a tenth of a second."""
        listed = list(rows)
        return cls(
            array("I", [row[0] + 1 for row in listed]),
            array("Q", [row[1] for row in listed]),
            array("q", [round(10 * row[2]) for row in listed]),
            [row[3] for row in listed],
        )

    def __len__(self) -> int:
        return len(self.owner)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | Sequence[Row]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        return self.owner[at] - 1, self.size[at], self.born[at] / 10, self.place[at]

    def __iter__(self) -> Iterator[Row]:
        return zip(
            [owner - 1 for owner in self.owner], self.size, [born / 10 for born in self.born], self.place, strict=True
        )
