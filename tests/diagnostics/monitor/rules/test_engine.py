"""Rules over time: when they fire and when not, and limits that outlive whoever keeps them."""

from __future__ import annotations

import itertools
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.monitor.rules.engine import Engine
from diagnostics.monitor.rules.expression import parse_condition
from diagnostics.monitor.rules.limits import Limits
from diagnostics.monitor.rules.limits_file import LimitsFile
from diagnostics.monitor.rules.rule import Rule
from diagnostics.monitor.rules.triggers import DAY

RULE = Rule("near", "cgroup_share", 0.8, hold=3, cooldown=10, limit=2)


def fired(rule: Rule, values: dict[float, float | None], limits: Limits | None = None) -> list[float]:
    engine = Engine((rule,), limits, "0")
    return [firing.time for now, value in values.items() for firing in engine.look(now, {rule.trigger: value})]


def test_it_fires_once_the_value_has_stayed_above_for_long_enough() -> None:
    assert fired(RULE, {0: 0.9, 1: 0.9, 2: 0.9, 3: 0.9, 4: 0.9}) == [3]


@pytest.mark.parametrize("broken", [0.8, None], ids=["back at the bound", "not known"])
def test_a_break_starts_the_time_anew(broken: float | None) -> None:
    assert fired(RULE, {0: 0.9, 2: broken, 3: 0.9, 5: 0.9, 6: 0.9}) == [6]


def test_it_cools_down_and_stops_at_its_limit_until_a_day_is_over() -> None:
    steady: dict[float, float | None] = {float(second): 0.9 for second in range(60)}
    assert fired(RULE, steady) == [3, 13]
    assert fired(RULE, {**steady, DAY: 0.9, DAY + 3: 0.9, DAY + 13: 0.9}) == [3, 13, DAY + 3, DAY + 13]


def test_the_most_of_an_hour_holds_back_until_the_hour_is_over() -> None:
    rule = Rule("often", "rss_share", 0.5, hold=0, cooldown=0, limit=1000, per_hour=2)
    assert fired(rule, {0: 0.9, 1: 0.9, 2: 0.9, 3599: 0.9, 3600: 0.9, 3600.5: 0.9, 3601: 0.9}) == [0, 1, 3600, 3601]


def test_a_forecast_fires_below_its_bound() -> None:
    rule = Rule("soon", "seconds_to_limit", 600, hold=0)
    assert fired(rule, {0: None, 1: 700.0, 2: 599.0}) == [2]


def test_a_condition_holds_for_its_own_time() -> None:
    rule = Rule("ratio", condition=parse_condition("rss_bytes / open_streams > 100 for 2 s"))
    engine = Engine((rule,))
    rows = [(0, 300, 2), (1, 300, 0), (2, 300, 2), (3, 300, 2), (4, 300, 2)]  # no streams: no ratio
    assert [
        firing.time
        for now, rss, streams in rows
        for firing in engine.look(now, {"rss_bytes": rss, "open_streams": streams})
    ] == [4]


@given(
    values=st.lists(st.one_of(st.none(), st.floats(0, 2)), max_size=200),
    hold=st.integers(0, 5),
    cooldown=st.integers(0, 20),
    limit=st.integers(1, 5),
    per_hour=st.one_of(st.none(), st.integers(1, 3)),
)
def test_never_more_often_than_it_says_and_never_below_the_bound(
    values: list[float | None], hold: int, cooldown: int, limit: int, per_hour: int | None
) -> None:
    rule = Rule("any", "rss_share", 0.5, hold, cooldown=cooldown, limit=limit, per_hour=per_hour)
    times = fired(rule, {float(second): value for second, value in enumerate(values)})
    assert len(times) <= min(limit, per_hour or limit)
    assert all(later - earlier >= cooldown for earlier, later in itertools.pairwise(times))
    for time in times:
        stretch = values[int(time) - hold : int(time) + 1]
        assert all(value is not None and value > 0.5 for value in stretch)


@given(
    values=st.lists(st.one_of(st.none(), st.floats(0, 2)), max_size=100),
    ends=st.sets(st.integers(0, 99)),
    cooldown=st.integers(0, 20),
    limit=st.integers(1, 3),
)
def test_who_begins_anew_again_and_again_fires_no_more_often(
    values: list[float | None], ends: set[int], cooldown: int, limit: int
) -> None:
    """Limits of another life, by way of the file: as often as a monitor or a worker is replaced."""
    rule = Rule("any", "rss_share", 0.5, 0, cooldown=cooldown, limit=limit)
    limits = Limits()
    engine = Engine((rule,), limits, "0")
    times = []
    for second, value in enumerate(values):
        if second in ends:
            limits = Limits.of_json(json.loads(json.dumps(limits.to_json())), second)
            engine = Engine((rule,), limits, "0")
        times += [firing.time for firing in engine.look(second, {"rss_share": value})]
    assert times == fired(rule, {float(second): value for second, value in enumerate(values)})


def test_workers_have_limits_of_their_own() -> None:
    limits = Limits()
    first, second = (Engine((RULE,), limits, name) for name in ("0", "1"))
    for now in range(4):
        found = [len(engine.look(now, {"cgroup_share": 0.9})) for engine in (first, second)]
    assert found == [1, 1]


def test_what_limits_keep_back_is_counted_once_for_each_stretch() -> None:
    engine = Engine((Rule("near", "cgroup_share", 0.8, hold=0, cooldown=100, limit=5),))
    counts = []
    for now, value in enumerate([0.9, 0.9, 0.1, 0.9, 0.9, 0.1, 0.9]):
        engine.look(now, {"cgroup_share": value})
        counts.append(len(engine.suppressed()))
    assert counts == [0, 0, 0, 1, 0, 0, 1]  # the stretch that fired is not suppressed while it cools down


def test_the_limits_file_is_private_whole_and_kept(tmp_path: Path) -> None:
    kept = LimitsFile(tmp_path / "monitor")
    assert not kept.load(0.0).holds_back(RULE, "0", 0.0)
    limits = Limits()
    limits.fired(RULE, "0", 1000.0)
    kept.save(limits)
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
    again = LimitsFile(tmp_path / "monitor").load(1001.0)
    assert again.holds_back(RULE, "0", 1001.0)
    assert not again.holds_back(RULE, "0", 1011.0)
    assert not again.holds_back(RULE, "1", 1001.0)


def test_a_clock_that_was_set_back_holds_a_rule_back_no_longer_than_its_limits(tmp_path: Path) -> None:
    limits = Limits()
    limits.fired(RULE, "0", 1e9)
    again = Limits.of_json(limits.to_json(), 1000.0)
    assert again.holds_back(RULE, "0", 1001.0)
    assert not again.holds_back(RULE, "0", 1010.0)


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"[" * 100_000, b'{"schema": "other", "fired": []}', b'{"schema": "highwater.rule-limits/1"}',
     b'{"schema": "highwater.rule-limits/1", "fired": [["a", "0", [NaN]]]}',
     b'{"schema": "highwater.rule-limits/1", "fired": [["a", "0", ["x"]]]}', b"\xff\xfe"],
)  # fmt: skip
def test_a_damaged_limits_file_is_told_and_begins_anew(
    damaged: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = LimitsFile(tmp_path)
    kept.path.write_bytes(damaged)
    assert not kept.load(1.0).holds_back(RULE, "0", 1.0)
    assert "cannot be read, and begin anew" in caplog.text


def test_limits_that_cannot_be_kept_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = LimitsFile(tmp_path)
    kept.path.mkdir()
    for _ in range(3):
        kept.save(Limits())
    assert caplog.text.count("cannot be kept") == 1
