"""Which replica is not as the others, and what a row is made of."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from diagnostics.fleet.replicas import HourlyGrowth, Replica, odd, replica_of

MIB = 2**20


def fleet(*sizes: int) -> list[Replica]:
    return [Replica(f"r{number}", "", rss_bytes=size) for number, size in enumerate(sizes)]


@given(st.lists(st.integers(90 * MIB, 112 * MIB), min_size=1, max_size=40))
def test_replicas_within_a_quarter_of_each_other_are_alike(sizes: list[int]) -> None:
    assert odd(fleet(*sizes)) == {}


@given(st.lists(st.integers(95 * MIB, 105 * MIB), min_size=2, max_size=40), st.floats(1.7, 20.0))
@example([95 * MIB, 95 * MIB, 105 * MIB], 2.0)  # all but two are alike to the byte: their distance is 0
def test_the_one_that_is_much_larger_is_odd_and_no_other(sizes: list[int], times: float) -> None:
    assert set(odd(fleet(*sizes, round(105 * MIB * times)))) == {f"r{len(sizes)}"}


def test_of_two_nobody_can_say_which_is_the_odd_one() -> None:
    assert odd(fleet(100 * MIB, 900 * MIB)) == {}
    well, ill = Replica("a", ""), Replica("b", "", alarm=True)
    assert odd([well, ill]) == {"b": "it alone has an alarm"}
    assert odd([ill]) == {}


def test_one_that_does_not_answer_is_neither_odd_nor_counted() -> None:
    silent = Replica("x", "", error="no monitor answers")
    assert odd([*fleet(100 * MIB, 101 * MIB), silent]) == {}


def test_a_version_of_its_own_is_odd_and_a_rollout_is_not() -> None:
    def of(*versions: str) -> list[Replica]:
        return [Replica(f"r{number}", "", version=version) for number, version in enumerate(versions)]

    assert odd(of("1", "1", "1", "2")) == {"r3": "it alone has version 2"}
    assert odd(of("1", "1", "2", "2")) == {}
    assert odd(of("1", "2")) == {}


def worker(title: str, **more: object) -> dict[str, object]:
    return {
        "verdict": {"title": title, "confidence": "high", "alarm": title != "Load only", "says": f"{title}."},
        "state": "answering", "ledger": None, "connections": {"streams": 2}, **more,
    }  # fmt: skip


def test_a_row_has_the_worst_verdict_the_fastest_growth_and_all_streams() -> None:
    told = {
        "version": "1.0",
        "workers": [
            worker(
                "Load only", growth={"low": -1.0, "mid": 0.0, "high": 1.0}, limit={"limit_bytes": 100, "used_bytes": 20}
            ),
            worker(
                "Objects are retained", growth={"low": 5.0, "mid": 6.0, "high": 7.0}, ledger={"open": 5}, state="silent"
            ),
        ],
        "service": {"verdict": worker("Load only")["verdict"], "rss_bytes": 7},
    }
    row = replica_of("a", "http://a", told)
    growth = HourlyGrowth(5.0, 6.0, 7.0)
    assert (row.verdict, row.alarm, row.growth, row.streams) == ("Objects are retained", True, growth, 7)
    assert (row.workers, row.silent, row.rss_bytes, row.limit_share, row.version) == (2, 1, 7, 0.2, "1.0")
    told["workers"].append(worker("Load only", connections={"streams": None}))  # type: ignore[attr-defined]
    assert replica_of("a", "http://a", told).streams is None  # not known of one, so not known of all
