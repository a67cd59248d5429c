"""What a recording says of a worker's memory, and its rows with their rates."""

from __future__ import annotations

import math
import random

import pytest

from diagnostics.monitor.recording.outlook import outlook
from diagnostics.monitor.recording.ring import Header, Recording, RingFile, RingSize
from diagnostics.monitor.recording.timeline import columns, rows
from diagnostics.monitor.recording.vitals import FIELDS


def recording(**columns_: list[float]) -> Recording:
    """A recording of one reading a second, of a process that started an hour before."""
    count = max(map(len, columns_.values()))
    file = RingFile.in_memory(
        Header(tuple((field.name, field.unit) for field in FIELDS), (RingSize(1.0, 4000), RingSize(60.0, 60)),
               {"pid": 1, "started": 1e9 - 3600})
    )  # fmt: skip
    for second in range(count):
        told = {"time": 1e9 + second, **{name: values[second] for name, values in columns_.items()}}
        file.append(0, [told.get(field.name, math.nan) for field in FIELDS])
    found = file.read()
    file.close()
    return found


def test_the_outlook_foretells_the_limit_from_the_working_set() -> None:
    count = 300
    judged = outlook(
        recording(
            cgroup_working_bytes=[1e8 + 1e6 * second for second in range(count)],
            cgroup_limit_bytes=[5e8] * count,
            in_use_bytes=[5e7 + 5e5 * second for second in range(count)],
            streams_finished_total=[2.0 * second for second in range(count)],
        )
    )
    assert judged.seconds_to_limit == pytest.approx((5e8 - 1e8 - 299e6) / 1e6, rel=1e-6)
    in_use = next(growth for growth in judged.growths if growth.series == "in_use_bytes")
    assert in_use.trend.growing
    per = in_use.to_json()["per_1000_streams"]
    assert per["slope"] == pytest.approx(1000 * 5e5 / 2)
    rss = next(growth for growth in judged.growths if growth.series == "rss_bytes")
    assert rss.trend.state == "unknown"


def test_the_outlook_of_flat_memory_or_no_limit_foretells_nothing() -> None:
    flat = outlook(recording(cgroup_working_bytes=[1e8] * 300, cgroup_limit_bytes=[5e8] * 300))
    assert (flat.seconds_to_limit, flat.limit_bytes, flat.used_bytes) == (None, 5e8, 1e8)
    unlimited = outlook(recording(cgroup_working_bytes=[1e8 + 1e6 * second for second in range(300)]))
    assert (unlimited.seconds_to_limit, unlimited.limit_bytes) == (None, None)
    assert outlook(recording(rss_bytes=[])).growths == ()


def test_a_slow_leak_that_ten_minutes_hide_shows_in_the_hour() -> None:
    rng = random.Random(1)
    noisy = [1e8 + 40 * second + rng.gauss(0, 2e4) for second in range(3600)]
    growth = next(found for found in outlook(recording(in_use_bytes=noisy)).growths if found.series == "in_use_bytes")
    assert growth.trend.growing
    assert growth.window == 3600
    assert growth.trend.slope == pytest.approx(40, rel=0.1)


def test_a_leak_that_began_two_minutes_ago_is_foretold_at_its_own_pace() -> None:
    rng = random.Random(1)
    idle_then_leaking = [1e8 + max(0, second - 480) * 1e6 + rng.gauss(0, 1e5) for second in range(600)]
    judged = outlook(recording(cgroup_working_bytes=idle_then_leaking, cgroup_limit_bytes=[4e8] * 600))
    assert judged.growths[-1].window == 120
    assert judged.seconds_to_limit == pytest.approx((4e8 - 1e8 - 119e6) / 1e6, rel=0.05)


def test_rates_are_not_known_across_a_restart_of_the_total() -> None:
    found = recording(events_total=[0.0, 10.0, 5.0, 25.0])
    at = [name for name, _ in columns(found)].index("events_per_second")
    assert [row[at] for row in rows(found)] == [None, 10.0, None, 20.0]
