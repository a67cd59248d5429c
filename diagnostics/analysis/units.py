"""Formats numbers for people: 1.5 MiB, 12,345, 41.2 %. Escapes untrusted text for terminals.

Sizes are in powers of 1024 and say so (KiB, MiB). A number keeps its sign; exactly zero is "0".
"""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["format_moment", "format_percent", "format_value", "printable"]

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# Time units in seconds, by their names in Go's profiles.
_SECONDS = {"nanoseconds": 1e-9, "microseconds": 1e-6, "milliseconds": 1e-3, "seconds": 1.0}


def format_value(value: int, unit: str, *, signed: bool = False) -> str:
    """`value` with its unit; `signed` puts a plus before positive values, for differences.

    >>> format_value(1536, "bytes"), format_value(-5 * 2**20, "bytes"), format_value(12345, "count", signed=True)
    ('1.50 KiB', '-5.00 MiB', '+12,345')
    """
    if value == 0:
        return "0"
    sign = "-" if value < 0 else "+" if signed else ""
    size = abs(value)
    if unit == "bytes":
        return sign + _size(size)
    if unit in _SECONDS:
        return f"{sign}{size * _SECONDS[unit]:,.3g} s"
    return f"{sign}{size:,}" + ("" if unit in ("count", "") else f" {unit}")


def _size(size: int) -> str:
    if size < 1024:
        return f"{size} B"
    scaled = float(size)
    for name in _SIZES[1:]:
        scaled /= 1024
        if scaled < 1023.995 or name == _SIZES[-1]:
            break
    return f"{scaled:.2f} {name}"


def format_percent(part: int, whole: int) -> str:
    """`part` of `whole` in per cent with one decimal; a share above 0 that rounds to 0.0 is "<0.1%"."""
    if whole == 0 or part == 0:
        return "0.0%"
    share = 100 * part / whole
    if abs(share) < 0.05:
        return "<0.1%" if share > 0 else ">-0.1%"
    return f"{share:.1f}%"


def format_moment(time: float) -> str:
    """Seconds since the epoch as UTC, to the second; the number itself where datetime cannot represent it."""
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return f"{time} s since the epoch"


def printable(text: str) -> str:
    r"""`text` with control characters escaped as \x1b, lone surrogates as \udc80: names in a profile are untrusted."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
