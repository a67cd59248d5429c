"""Admission: each exhausted limit refuses with its own reason, and all places and tokens are given back."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.admission import gate as limits
from relay.admission.gate import Admission, Gate, TokenBucket
from relay.errors import ApiError, OverloadedError, TooManyError
from relay.memory.limit import memory_share

ROOMY = {"max_streams": 0, "budget_bytes": 0, "stream_bytes": 100}


class Fixture:
    """A gate with a clock and a memory of its own."""

    def __init__(self, **changes: float) -> None:
        self.now = 0.0
        self.share: float | None = None
        self.readings = 0
        self.rejected: list[str] = []
        self.gate = Gate(
            Admission(**{**ROOMY, **changes}),  # type: ignore[arg-type]
            reject=self.rejected.append,
            memory=self._memory,
            clock=lambda: self.now,
        )

    def _memory(self) -> float | None:
        self.readings += 1
        return self.share

    def asks(self, key: str) -> ApiError | None:
        try:
            self.gate.request(key)
        except ApiError as error:
            return error
        return None


@pytest.mark.parametrize(
    ("admission", "room", "reason", "kind"),
    [
        ({"max_streams": 3}, 3, "streams", OverloadedError),
        ({"budget_bytes": 399}, 3, "bytes", OverloadedError),
        ({"key_max_streams": 2}, 2, "concurrency", TooManyError),
    ],
)
def test_as_many_streams_as_there_is_room_for(
    admission: dict[str, float], room: int, reason: str, kind: type[ApiError]
) -> None:
    fixture = Fixture(**admission)
    for _ in range(2):  # what was given back can be taken again
        with ExitStack() as open_streams:
            for _ in range(room):
                open_streams.enter_context(fixture.gate.stream("a"))
            with pytest.raises(kind) as refused:
                open_streams.enter_context(fixture.gate.stream("a"))
            assert refused.value.headers["retry-after"] == "1"
    assert fixture.rejected == [reason, reason]
    assert fixture.gate.open == 0


def test_one_callers_streams_do_not_count_for_another() -> None:
    gate = Fixture(key_max_streams=1).gate
    with gate.stream("a"), gate.stream("b"):
        assert gate.open == 2


def test_memory_is_read_once_a_second_at_most() -> None:
    fixture = Fixture(memory_share=0.9)
    fixture.share = 0.95
    for _ in range(50):
        assert isinstance(fixture.asks("a"), OverloadedError)
    assert fixture.readings == 1
    fixture.share, fixture.now = 0.5, 1.0
    assert fixture.asks("a") is None
    fixture.share, fixture.now = None, 2.0  # no limit to have a share of
    assert fixture.asks("a") is None
    assert set(fixture.rejected) == {"memory"}


def test_a_caller_over_its_rate_is_told_when_to_come_again() -> None:
    fixture = Fixture(key_rate=0.25, burst=2)
    assert [fixture.asks("a") for _ in range(2)] == [None, None]
    refused = fixture.asks("a")
    assert isinstance(refused, TooManyError)
    assert refused.headers["retry-after"] == "4"
    assert fixture.asks("b") is None
    fixture.now = 4.0
    assert fixture.asks("a") is None


def test_a_refused_caller_does_not_use_up_the_rate_of_all() -> None:
    fixture = Fixture(rate=1, key_rate=0.001, burst=3)
    assert [fixture.asks("greedy") for _ in range(3)] == [None] * 3
    fixture.now = 1.0  # one common token is there again
    assert all(fixture.asks("greedy") for _ in range(10))
    assert fixture.asks("b") is None


def test_the_table_of_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_KEYS", 10)
    fixture = Fixture(key_rate=1, burst=1)
    for number in range(1000):
        assert fixture.asks(f"caller-{number}") is None
    assert fixture.gate.keys == 10


@given(
    st.floats(0.1, 50), st.integers(1, 20), st.lists(st.floats(0, 2), min_size=1, max_size=200),
)  # fmt: skip
def test_no_more_than_burst_and_rate_are_let_through(rate: float, burst: int, gaps: list[float]) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    now, let_in = 0.0, 0
    for gap in gaps:
        now += gap
        wait = bucket.take(now)
        assert wait >= 0
        let_in += not wait
        assert let_in <= burst + now * rate + 1e-6


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n", encoding="utf-8")


@pytest.mark.parametrize("version", [1, 2])
def test_the_cgroup_nearest_to_its_limit_counts(tmp_path: Path, version: int) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/pod/me\n" if version == 2 else "5:cpu:/other\n4:memory:/pod/me\n", encoding="utf-8")
    top = tmp_path if version == 2 else tmp_path / "memory"
    limit, used = (
        ("memory__max", "memory__current") if version == 2 else ("memory__limit_in_bytes", "memory__usage_in_bytes")
    )
    unlimited = "max" if version == 2 else str(2**63 - 4096)
    group(top / "pod", **{limit: "1000", used: "700", "memory__stat": "anon 1\ninactive_file 200"})
    group(top / "pod/me", **{limit: unlimited, used: "700", "memory__stat": ""})
    share = memory_share(0, tmp_path, membership)
    assert share() == 0.5
    group(top / "pod", **{used: "1100"})
    assert share() == 0.9


def test_a_limit_that_is_set_counts_beside_the_cgroups(tmp_path: Path) -> None:
    assert memory_share(0, tmp_path)() is None
    share = memory_share(1 << 40, tmp_path)()
    assert share is not None
    assert 0 < share < 0.1
