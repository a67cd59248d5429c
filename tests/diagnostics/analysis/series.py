"""Series of readings that have no trend, whatever they look like. How often they are accused: tests/bench/bench_trend.py."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

__all__ = ["TRENDLESS", "Series", "filled_once", "noise"]

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


TRENDLESS: dict[str, Callable[[random.Random, int], Series]] = {
    "independent noise": noise,
    "AR(1) noise, 0.7": lambda rng, seconds: noise(rng, seconds, 0.7),
    "AR(1) noise, 0.99": lambda rng, seconds: noise(rng, seconds, 0.99),
    "random walk": lambda rng, seconds: noise(rng, seconds, 1.0),
    "random walk in rare, heavy-tailed jumps": jumping_walk,
    "running maximum of noise": most_seen,
    "one step": one_step,
}
