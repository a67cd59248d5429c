"""What is offered where a capture is refused: priced for the same moment, and never what would be refused as well."""

from __future__ import annotations

import pytest

from diagnostics.analysis.cost import Load, Method, estimate
from diagnostics.errors import TooCostlyError
from diagnostics.monitor.captures.cost.pace import Pace
from diagnostics.monitor.captures.cost.quote import Quote
from diagnostics.monitor.captures.kinds import cheaper_than, kind_named
from diagnostics.monitor.kernel.headroom import Headroom

MIB = 1024**2


def refused(share: float, free_bytes: int, kind: str = "tracemalloc", **options: object) -> TooCostlyError:
    """What a capture of a 200 MiB service at that share of a core is refused with."""
    chosen = kind_named(kind)
    checked = chosen.checked({"seconds": 5, **options})
    method: Method = chosen.method(checked)
    load = Load(200 * MIB, 1_000_000, share)
    quote = Quote(method, estimate(method, load), load, Headroom(free_bytes, "MemAvailable"), Pace(share, None))
    with pytest.raises(TooCostlyError) as told:
        quote.refuse("it", [(command, quote.with_method(one)) for command, _kind, one in cheaper_than(chosen, checked)])
    return told.value


def commands(error: TooCostlyError) -> list[str]:
    return [offer["command"].removeprefix("diagnostics capture URL --kind ") for offer in error.details["offers"]]


def test_a_service_that_bears_fewer_frames_or_memray_is_offered_these_first_with_their_price() -> None:
    error = refused(0.3, 10_000 * MIB)
    assert commands(error) == [
        "memray --seconds 5", "tracemalloc --frames 1 --seconds 5", "objects --seconds 5", "tasks --seconds 5",
    ]  # fmt: skip
    assert "take diagnostics capture URL --kind memray --seconds 5 (stalls " in error.remedy
    assert "needs about 69 % of a core meanwhile" in error.remedy


def test_a_busier_one_is_offered_only_what_it_bears() -> None:
    assert commands(refused(0.45, 10_000 * MIB)) == [
        "tracemalloc --frames 1 --seconds 5",
        "objects --seconds 5",
        "tasks --seconds 5",
    ]
    assert commands(refused(0.8, 10_000 * MIB)) == ["objects --seconds 5", "tasks --seconds 5"]
    # A census needs pages of its own for the whole service, and there is no room for them.
    assert commands(refused(0.8, 100 * MIB)) == ["tasks --seconds 5"]


def test_where_nothing_is_borne_it_says_to_wait() -> None:
    error = refused(0.8, 1 * MIB)
    assert commands(error) == []
    assert error.remedy.startswith("wait for less load, or send")
