"""Series of readings that have no trend, whatever they look like. How often they are accused: tests/bench/bench_trend.py."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

__all__ = ["NOISES", "TRENDLESS", "Series", "filled_once", "noise"]

Series = list[float]


def noise(rng: random.Random, seconds: int, correlation: float = 0.0) -> Series:
    value, values = 0.0, []
    for _ in range(seconds):
        value = correlation * value + rng.gauss(0, 1)
        values.append(value)
    return values


def jumping_walk(rng: random.Random, seconds: int) -> Series:
    """What resident memory looks like: still, then a jump by a heavy-tailed amount, up or down."""
    value, values = 0.0, []
    for _ in range(seconds):
        if rng.random() < 0.05:
            value += rng.choice((-1, 1)) * rng.paretovariate(1.5)
        values.append(value)
    return values


def most_seen(rng: random.Random, seconds: int) -> Series:
    """An allocator that keeps what it once had: the running maximum of stationary use."""
    most, values = -math.inf, []
    for value in noise(rng, seconds, 0.7):
        most = max(most, value)
        values.append(most)
    return values


def one_step(rng: random.Random, seconds: int) -> Series:
    at = rng.uniform(0, seconds)
    return [50 * (second > at) + value for second, value in enumerate(noise(rng, seconds))]


def filled_once(rng: random.Random, seconds: int) -> Series:
    """A cache that fills at some moment, at once or over up to a third of the time, and is then full."""
    begins, takes = rng.uniform(0, seconds), rng.uniform(0, seconds / 3)
    filled = (50 * min(1.0, max(0.0, (second - begins) / (takes + 1))) for second in range(seconds))
    return [level + value for level, value in zip(filled, noise(rng, seconds), strict=True)]


def temporaries(rng: random.Random, seconds: int) -> Series:
    """Large blocks that live for a second or two, in a quarter of all readings."""
    return [(rng.random() < 0.25) * 50 * rng.random() + rng.gauss(0, 1) for _ in range(seconds)]


def collected(rng: random.Random, seconds: int) -> Series:
    """Garbage in cycles that piles up until the collector runs, at an even pace."""
    period = rng.uniform(8, 60)
    start = rng.uniform(0, period)
    return [20 * (((second + start) % period) / period) + rng.gauss(0, 1) for second in range(seconds)]


def wide(rng: random.Random, seconds: int) -> Series:
    return [30 * rng.gauss(0, 1) * (1 + rng.random()) for _ in range(seconds)]


def levels(rng: random.Random, seconds: int) -> Series:
    """A load that changes every minute or so, and memory with it."""
    level, values = 0.0, []
    for _ in range(seconds):
        if rng.random() < 0.02:
            level = rng.gauss(0, 30)
        values.append(level + rng.gauss(0, 1))
    return values


TRENDLESS: dict[str, Callable[[random.Random, int], Series]] = {
    "independent noise": noise,
    "AR(1) noise, 0.7": lambda rng, seconds: noise(rng, seconds, 0.7),
    "AR(1) noise, 0.99": lambda rng, seconds: noise(rng, seconds, 0.99),
    "random walk": lambda rng, seconds: noise(rng, seconds, 1.0),
    "random walk in rare, heavy-tailed jumps": jumping_walk,
    "running maximum of noise": most_seen,
    "one step": one_step,
}

# Noise around a slope of zero, by its kind. A running maximum is none: it does grow for a while.
NOISES: dict[str, Callable[[random.Random, int], Series]] = {
    **{name: make for name, make in TRENDLESS.items() if make is not most_seen},
    "large temporaries": temporaries,
    "garbage and the collector": collected,
    "wide noise": wide,
    "levels that change": levels,
}
