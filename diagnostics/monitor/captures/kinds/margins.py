"""How far the figures of a census may be off that looked at a sample of the objects.

Each small object was in the agent's sample with the same chance, on its own (Poisson sampling). So the variance of an estimated
sum is known from the sample itself (Horvitz and Thompson). Of the difference of two censuses it is that of what came and what
went: an object that both saw is in both sums or in none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["Margins", "share_of"]

# Of a normal distribution 95 % lie within so many standard deviations.
_95 = 1.96
# Of few objects none may be in the sample, which says nothing of how many there are: so many more or fewer are always possible.
_FEW = 2.0


def share_of(census: Mapping[str, Any]) -> float:
    """Of the small objects the share that a census looked at."""
    return float(census["sample"]["share"]) if census.get("sample") else 1.0


class Margins:
    """Half the widths of 95 % intervals: of what types gained between two censuses, or of what one census counted.

    before, after   answers of the agent's census; `before` None where there was one only
    sampled         in words, what was looked at; None where it was everything, and all margins are 0
    total_bytes     the margin of the sum over all types
    """

    def __init__(self, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> None:
        share = share_of(after)
        self.sampled = None
        self._figures: dict[str, tuple[float, float, float]] = {}
        if share < 1.0:
            self.sampled = (
                f"{1 - share:.1%} of the objects below 4 KiB: there are too many, and the rest stands for all; what is behind "
                "± is half of a 95 % interval"
            )
            kept = (before or {"sample": {"types": {}}})["sample"]["types"]
            for name in {*kept, *after["sample"]["types"]}:
                self._figures[name] = _changed(
                    kept.get(name), after["sample"]["types"].get(name, _NONE), before is None
                )
        self._weight, self._factor = 1 / share, (1 - share) / share**2
        self.total_bytes = _95 * math.sqrt(
            self._factor * sum(squares for _count, squares, _size in self._figures.values())
        )

    def of(self, name: str) -> dict[str, float]:
        """`{"margin_bytes", "margin_count"}` of a type's row."""
        if name not in self._figures:
            return {"margin_bytes": 0, "margin_count": 0}
        count, squares, size = self._figures[name]
        few = _FEW * self._weight
        return {
            "margin_bytes": round(_95 * math.sqrt(self._factor * squares) + few * size),
            "margin_count": round(_95 * math.sqrt(self._factor * count) + few),
        }


_NONE = (0, 0, 0, 0)


def _changed(before: Any, after: Any, all_of_it: bool) -> tuple[float, float, float]:
    """(objects of a type in the sample that count, the sum of the squares of their sizes, a usual size)."""
    was, was_squares, *_ = before or _NONE
    count, squares, new, new_squares = after
    usual = math.sqrt((squares + was_squares) / (count + was)) if count + was else 0.0
    if all_of_it:
        return count, squares, usual
    gone = max(0, was - (count - new))
    return new + gone, new_squares + (gone * was_squares / was if was else 0.0), usual
