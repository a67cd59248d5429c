"""The histogram of the hot path counts as the plain one does, and a reader in another thread misses nothing."""

from __future__ import annotations

from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.agent.histogram import GAP_SECONDS, MAX_COLLECTED, Collected, Histogram


@given(st.lists(st.one_of(st.floats(0, 1e5), st.sampled_from(GAP_SECONDS)), max_size=50), st.integers(1, 40))
def test_what_is_collected_is_counted_as_if_at_once(values: list[float], times: int) -> None:
    plain, collected = Histogram(GAP_SECONDS), Collected(GAP_SECONDS)
    for value in values * times:
        plain.observe(value)
        collected.observe(value)
    one, other = plain.to_json(), collected.to_json()
    assert other.pop("sum") == pytest.approx(one.pop("sum"))
    assert one == other
    assert collected.counts == plain.counts
    assert len(collected.state[2]) == len(values) * times % MAX_COLLECTED


def test_a_reader_in_another_thread_sees_each_observation_once() -> None:
    histogram, over = Collected(GAP_SECONDS), Event()
    seen: list[int] = []

    def read() -> None:
        while not over.is_set():
            seen.append(sum(histogram.to_json()["counts"]))

    reader = Thread(target=read)
    reader.start()
    observed = 20 * MAX_COLLECTED + 7
    for number in range(observed):
        histogram.observe(number / 1000)
    over.set()
    reader.join()
    assert seen == sorted(seen)  # a count that fell would be a restart to Prometheus
    assert sum(histogram.counts) == observed
