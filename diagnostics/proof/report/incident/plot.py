"""A timeline as SVG: bytes over seconds. Colours and fonts come from the page; without it the lines differ by their dashes.

Attributes are presentation attributes and classes, never `style`: the page's policy allows no inline styles.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from typing import Protocol

from ....analysis.units import format_value
from .model import Curve, Plot

__all__ = ["svg", "ticks"]

_WIDTH, _HEIGHT = 960, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 12, 14, 30
_MOST_POINTS = 2000
_DASHES = ("", "7 4", "2 4", "10 3 2 3")


def ticks(low: float, high: float, about: int, *, binary: bool = False) -> list[float]:
    """Round numbers from `low` to `high`, about `about` of them; `binary`: multiples of powers of 1024.

    >>> ticks(0, 10, 5), ticks(0, 4 * 2**20, 4, binary=True)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [0.0, 1048576.0, 2097152.0, 3145728.0, 4194304.0])
    """
    raw = max(high - low, 1e-9) / about
    unit = 1024.0 ** max(0, math.floor(math.log(max(raw, 1), 1024))) if binary else 1.0
    power = unit * 10 ** math.floor(math.log10(raw / unit))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def svg(plot: Plot) -> str:
    """The plot, or a sentence where there is nothing to draw."""
    points = [point for curve in plot.curves for piece in curve.pieces for point in piece]
    if len(points) < 2:
        return "<p>Too few readings to draw.</p>"
    last = max(x for x, _ in points) or 1.0
    low, high = _range([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + x / last * (_WIDTH - _LEFT - _RIGHT)
        return across, _TOP + (high - y) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(plot.title)}">',
        f"<title>{html.escape(plot.title)}</title>",
    ]
    for y in ticks(low, high, 5, binary=True):
        _, at = place(0, y)
        label = html.escape(format_value(round(y), "bytes").replace(".00 ", " "))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    for x in ticks(0, last, 8):
        at, _ = place(x, low)
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{x:g} s</text>')
    for number, curve in enumerate(plot.curves):
        parts += _lines(curve, _DASHES[number % len(_DASHES)], place)
    return "\n".join([*parts, "</svg>"])


def _lines(curve: Curve, dashes: str, place: _Place) -> Iterator[str]:
    many = sum(len(piece) for piece in curve.pieces) // _MOST_POINTS + 1
    dash = f' stroke-dasharray="{dashes}"' if dashes else ""
    for piece in curve.pieces:
        # Thinned out, but the last point stays.
        shown = [*piece[:-1:many], *piece[-1:]]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in shown))
        yield f'<polyline class="{curve.tone}" fill="none"{dash} points="{path}"/>'


class _Place(Protocol):
    """Maps a point of the data to coordinates in the SVG."""

    def __call__(self, x: float, y: float) -> tuple[float, float]: ...


def _range(values: list[float]) -> tuple[float, float]:
    """The range of the vertical axis: from zero, unless all curves would then lie at the top."""
    least, most = min(values), max(values)
    low = 0.0 if least < most * 0.6 else max(0.0, least - (most - least) * 0.15 - 1024)
    return low, most + (most - low) * 0.04 + 1
