from __future__ import annotations

from typing import Any

import pytest

from diagnostics.monitor.captures.cost.watch import WindowWatch


def told(lag_ms: float) -> dict[str, Any]:
    return {"lag_ms": lag_ms, "max_lag_ms": lag_ms}


@pytest.mark.parametrize(
    ("looks", "cut_at"),
    [
        ([told(5)] * 10, None),
        ([told(1500), told(5), told(1500), told(5), told(1500), told(5)], None),  # late moments that pass
        ([told(5), told(1500), told(1500), told(1500)], 3),  # two seconds from the first late look
        ([told(5), None, None, None], 3),  # silence is lateness
        ([None, told(1500), None], 2),
        ([told(1000)] * 10, None),  # the limit itself is allowed
    ],
)
def test_a_window_is_cut_short_when_lateness_stays(looks: list[dict[str, Any] | None], cut_at: int | None) -> None:
    watch = WindowWatch(max_lag_ms=1000)
    reasons = [watch.look(float(second), look) for second, look in enumerate(looks)]
    assert next((second for second, reason in enumerate(reasons) if reason), None) == cut_at


def test_the_reason_names_what_was_seen_and_the_limit_and_the_worst_is_kept() -> None:
    watch = WindowWatch(max_lag_ms=100)
    watch.look(0.0, {"lag_ms": 300.0, "max_lag_ms": 900.0})
    reason = watch.look(2.5, told(350))
    assert reason == "the service did not keep up for 2.5 s: its loop is 350 ms late, the limit is 100 ms"
    assert watch.max_lag_ms == 900


@pytest.mark.parametrize(
    ("shares", "cut_at"),
    [
        ([0.9] * 6, None),
        ([0.99, 0.5, 0.99, 0.5, 0.99], None),  # busy moments that pass
        ([0.5, 0.99, 1.0, 0.99], 3),
        ([None] * 6, None),  # a kernel that does not count is no reason
    ],
)
def test_a_window_is_cut_short_where_the_service_has_no_rest(shares: list[float | None], cut_at: int | None) -> None:
    watch, forced = WindowWatch(max_lag_ms=1000), WindowWatch(max_lag_ms=1000, judge_load=False)
    reasons = [watch.look(float(second), told(5), share) for second, share in enumerate(shares)]
    assert next((second for second, reason in enumerate(reasons) if reason), None) == cut_at
    assert all(forced.look(float(second), told(5), share) is None for second, share in enumerate(shares))
    if cut_at is not None:
        assert reasons[cut_at] == (
            "the service had no rest for 2.0 s: a thread of it worked, or waited for a core, 99 % of the time"
        )
