"""Intervals of sampled figures hold what they say, for mixtures of sizes; and a table of a live heap is read or refused."""

from __future__ import annotations

import math
import random

import pytest

from diagnostics.analysis.profile import Frame, Profile, Sample, ValueType
from diagnostics.analysis.sampling import Uncertainty
from diagnostics.analysis.views import top

RATE = 512 * 1024
# What is alive: (bytes, blocks) of each kind. A few samples, many, and blocks that are nearly all taken.
MIXTURES = {
    "a MiB of small objects": [(100, 10_000)],
    "ten MiB of small objects": [(100, 100_000)],
    "a few buffers": [(50 * 1024, 40)],
    "many buffers": [(50 * 1024, 400)],
    "small and buffers": [(100, 10_000), (50 * 1024, 100)],
    "large blocks": [(1 << 20, 5)],
    "larger than the rate": [(4 << 20, 20), (300, 8_000)],
}


def taken(draw: random.Random, size: int, blocks: int) -> int:
    """How many of the blocks are sampled: from one to the next taken one it is geometrically distributed."""
    chance = -math.expm1(-size / RATE)
    at, count = 0, 0
    while True:
        at += 1 + int(math.log(1 - draw.random()) / math.log1p(-chance))
        if at > blocks:
            return count
        count += 1


@pytest.mark.parametrize("name", MIXTURES)
def test_the_truth_lies_within_in_95_of_100_cases(name: str) -> None:
    draw = random.Random(name)
    held = tried = 0
    for _ in range(400):
        doubt = Uncertainty()
        truth = estimate = blocks = 0.0
        for size, count in MIXTURES[name]:
            weight = taken(draw, size, count) / -math.expm1(-size / RATE)
            truth, estimate, blocks = truth + size * count, estimate + size * weight, blocks + weight
        if not estimate:  # nothing taken: there is no row that would be shown
            continue
        doubt.add(estimate, estimate / blocks, RATE)
        low, high = doubt.interval()
        assert low - 1 <= estimate <= high + 1
        tried += 1
        held += low <= truth <= high
    # 95 % of 400 with three standard deviations of luck.
    assert held / tried > 0.917


def test_what_was_counted_whole_has_no_width_and_nothing_below_what_was_seen() -> None:
    doubt = Uncertainty()
    doubt.add(100 << 20, 100 << 20, RATE)
    assert doubt.interval() == (100 << 20, 100 << 20)
    doubt = Uncertainty()
    doubt.add(RATE / (1 - 1 / math.e), RATE, RATE)  # one block of just the rate
    assert doubt.interval()[0] >= RATE - 1


def test_a_row_of_a_sampled_profile_has_an_interval_and_one_of_a_counted_profile_has_none() -> None:
    frames = (Frame("a", "x.py", 1), Frame("b", "x.py", 9))
    types = (ValueType("inuse_space", "bytes"), ValueType("inuse_objects", "count"))
    samples = (
        Sample(frames, (10 << 20, 100_000), (("age", "new"),)),
        Sample(frames, (10 << 20, 100_000), (("age", "old"),)),
    )
    counted = Profile("heap", types, samples, 0.0, 0.0)
    sampled = Profile("heap", types, samples, 0.0, 0.0, meta={"sampled": {"rate_bytes": RATE}})
    assert all(row.interval is None for row in top(counted).rows)
    rows = {row.frame.function: row.interval for row in top(sampled).rows}
    assert rows["b"] is None  # nothing was allocated by it itself
    low, high = rows["a"] or (0, 0)
    # 20 MiB at 512 KiB: 40 samples, a deviation of 16 %.
    assert 13 << 20 < low < 15 << 20
    assert 26 << 20 < high < 29 << 20
    objects = {row.frame.function: row.interval for row in top(sampled, 1).rows}
    low, high = objects["a"] or (0, 0)
    assert low < 200_000 < high


def test_growth_and_shrinkage_widen_the_interval_of_their_difference() -> None:
    doubt = Uncertainty()
    doubt.add(50 << 20, 100, RATE)
    doubt.add(-(50 << 20), 100, RATE)
    low, high = doubt.interval()
    assert low < -(10 << 20)
    assert high > 10 << 20


def test_of_a_difference_of_two_files_nothing_is_claimed() -> None:
    types = (ValueType("inuse_space", "bytes"), ValueType("inuse_objects", "count"))
    sample = Sample((Frame("a", "x.py", 1),), (10 << 20, 100_000))
    meta = {"sampled": {"rate_bytes": RATE}, "difference": {}}
    assert top(Profile("heap", types, (sample,), 0.0, 0.0, meta=meta)).rows[0].interval is None
