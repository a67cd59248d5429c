from __future__ import annotations

import pytest

from diagnostics.analysis.units import format_moment, format_percent, format_value, printable


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "bytes", "0"),
        (1023, "bytes", "1023 B"),
        (1024, "bytes", "1.00 KiB"),
        (1024 * 1024 - 1, "bytes", "1.00 MiB"),
        (-1536, "bytes", "-1.50 KiB"),
        (2**70, "bytes", "1024.00 EiB"),
        (1234567, "count", "1,234,567"),
        (1_500_000_000, "nanoseconds", "1.5 s"),
        (3, "tasks", "3 tasks"),
    ],
)
def test_values(value: int, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


def test_signs() -> None:
    assert format_value(2048, "bytes", signed=True) == "+2.00 KiB"
    assert format_value(0, "bytes", signed=True) == "0"


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(1, 3, "33.3%"), (0, 0, "0.0%"), (0, 9, "0.0%"), (1, 10_000, "<0.1%"), (-1, 10_000, ">-0.1%"), (-5, 10, "-50.0%")],
)
def test_percent(part: int, whole: int, text: str) -> None:
    assert format_percent(part, whole) == text


def test_moments_beyond_any_calendar_are_numbers() -> None:
    assert format_moment(0) == "1970-01-01 00:00:00 UTC"
    assert "1e+300" in format_moment(1e300)


def test_nothing_reaches_the_terminal_that_it_would_act_on() -> None:
    assert printable("plain é") == "plain é"
    assert printable("\x1b[2J\udc80\n") == r"\x1b[2J\udc80\n"
