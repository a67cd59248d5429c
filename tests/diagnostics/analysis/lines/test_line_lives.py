"""What lines gained within the lives of a recycled worker: held against heaps whose true blocks are known."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from diagnostics.analysis.lines.growth import LineGrowth
from diagnostics.analysis.lines.lives import LineLife, life_of, pooled

from .planted_heap import RATE, STARTED, Heap

# A life lasts a minute and a half; its first quarter is its warm-up.
SECONDS, WARM = 90, 20
Fill = Callable[[Heap], None]


def life(heap: Heap, most: int = 300) -> LineLife:
    known = life_of(heap.history(range(0, SECONDS + 1, 5)), STARTED + WARM, most)
    assert known is not None
    return known


def lived(fill: Fill, seed: int, count: int = 6, most: int = 300) -> list[LineLife]:
    lives = []
    for number in range(count):
        heap = Heap(random.Random(f"{seed} {number}"))
        fill(heap)
        lives.append(life(heap, most))
    return lives


def rows(lives: list[LineLife]) -> dict[str, LineGrowth]:
    return {row.frame.function: row for row in pooled(lives[:-1], lives[-1])}


def leak(heap: Heap, total: float) -> None:
    heap.fill("f", total, 20_000, 0, SECONDS)


def small(heap: Heap, total: float) -> None:
    heap.rate = 4096
    heap.fill("f", total / 128, 100, 0, SECONDS)


def mixed(heap: Heap, total: float) -> None:
    for size in (5000, 50_000, 700_000):
        heap.fill("f", total, size, 0, SECONDS, lives=heap.rng.uniform(15, 60))
        heap.fill("f", total / 3, size, 0, SECONDS)


def full(heap: Heap, total: float) -> None:
    """A full cache: what comes takes the place of what goes."""
    heap.fill("f", 3 * total, 20_000, -40, SECONDS, lives=45)


@pytest.mark.parametrize("kind", [leak, small, mixed, full])
def test_the_interval_holds_the_true_gain_of_all_lives_in_at_least_95_of_100_cases(
    kind: Callable[[Heap, float], None],
) -> None:
    """200 workers of three lives each. The seed is fixed."""
    held = 0
    for case in range(200):
        rng = random.Random(f"{kind.__name__} {case}")
        truth, lives, rate = 0, [], RATE
        for _ in range(3):
            heap = Heap(random.Random(rng.random()))
            kind(heap, rng.choice([1, 2, 5, 10]) * RATE)
            truth += heap.alive("f", SECONDS) - heap.alive("f", WARM)
            lives.append(life(heap))
            rate = heap.rate
        found = rows(lives)
        # Of a line without a single sample nothing is said.
        held += found["f"].low <= truth <= found["f"].high if found else truth <= 4 * rate
    assert held >= 190


@pytest.mark.parametrize("seed", range(10))
def test_a_leak_that_no_life_is_long_enough_to_show_grows_in_all_together(seed: int) -> None:
    def fill(heap: Heap) -> None:
        heap.fill("leaks", 10 * RATE, 20_000, 0, SECONDS)  # 5 MiB in a life
        heap.fill("loads", 30 * RATE, 20_000, 0, 2)

    lives = lived(fill, seed, count=8)
    found = rows(lives)
    assert found["leaks"].grows
    assert found["leaks"].lives == 8
    assert found["leaks"].seconds == 8 * (SECONDS - WARM)
    _, pace, _ = found["leaks"].per_hour
    assert 0.5 < pace / (3600 * 10 * RATE / SECONDS) < 1.5
    assert found["leaks"].held < 20 * RATE  # of the life that goes on, not of all
    assert not found["loads"].grows
    assert not rows(lives[:1])["leaks"].grows


@pytest.mark.parametrize("seed", range(20))
def test_what_each_life_needs_once_is_not_called_growing(seed: int) -> None:
    """Whenever it needs it: a table is loaded when it is first asked for, which is another moment in every life."""

    def fill(heap: Heap) -> None:
        heap.fill("full cache", 60 * RATE, 20_000, -60, SECONDS, lives=60)
        at = heap.rng.uniform(0, SECONDS - 5)
        heap.fill("loads", 40 * RATE, 20_000, at, at + 1)
        heap.fill("fills", 40 * RATE, 20_000, 0, SECONDS / 2)
        heap.fill("of requests", 100 * RATE, 20_000, 0, SECONDS, lives=5)

    assert [name for name, row in rows(lived(fill, seed)).items() if row.grows] == []


@pytest.mark.parametrize("seed", range(10))
def test_what_one_life_did_is_no_growth_of_all(seed: int) -> None:
    lives = lived(lambda heap: heap.fill("f", 10 * RATE, 20_000, 0, 2), seed)
    one = Heap(random.Random(seed))
    one.fill("f", 200 * RATE, 20_000, 0, SECONDS)
    assert not rows([*lives[:3], life(one), *lives[3:]])["f"].grows


def test_a_line_that_a_life_leaves_out_may_have_lost_as_much_as_any_other() -> None:
    def fill(heap: Heap) -> None:
        for line in range(12):
            heap.fill(f"large {line}", (20 + line) * RATE, 20_000, 0, SECONDS)
        heap.fill("leaks", 15 * RATE, 20_000, 0, SECONDS)

    whole, cut = lived(fill, 1), lived(fill, 1, most=5)
    assert rows(whole)["leaks"].grows
    assert all(len(each.gains) == 5 and each.rest > 0 for each in cut)
    assert not rows([*whole[:1], *cut])["leaks"].grows


def test_of_a_life_that_is_too_short_nothing_is_known() -> None:
    heap = Heap(random.Random(1))
    heap.fill("f", 60 * RATE, 20_000, 0, 30)
    assert life_of(heap.history(range(0, 31, 5)), STARTED + 20) is None
    assert pooled([]) == []
