"""How often the decision rule is wrong: `python -m diagnostics.proof.study.rates`.

Simulated rounds with a known truth, judged by the rule as it is. `accused` is LEAK or UNBOUNDED, `acquitted` BOUNDED.
Below the least growth that matters every accusation is a false alarm; above it every acquittal is a miss. At exactly
the least growth both are wrong, and this is where the rule is wrong most often. Three kinds of noise between rounds:

    independent   what the rule assumes
    AR(1) 0.7     each round's error carries 70 % of the one before: more than one process showed here
    drifting      the figure itself does a random walk: it has no mean to estimate, and the rule promises nothing
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Iterator

from ...analysis.decision import Decision, Measure, Plan, decide

__all__ = ["NOISES", "main", "rates"]

_CORRELATION = 0.7


def _independent(source: random.Random) -> Iterator[float]:
    while True:
        yield source.gauss(0, 1)


def _correlated(source: random.Random) -> Iterator[float]:
    error = source.gauss(0, 1)
    while True:
        yield error
        error = _CORRELATION * error + (1 - _CORRELATION**2) ** 0.5 * source.gauss(0, 1)


def _drifting(source: random.Random) -> Iterator[float]:
    level = 0.0
    while True:
        level += source.gauss(0, 1)
        yield level


NOISES: dict[str, Callable[[random.Random], Iterator[float]]] = {
    "independent": _independent,
    "AR(1) 0.7": _correlated,
    "drifting": _drifting,
}


def rates(truth: float, noise: float, kind: str, *, trials: int, seed: int = 1) -> dict[str, float]:
    """Shares of `accused`, `acquitted` and `open` among `trials` simulated services.

    `truth` and `noise` (a standard deviation) are in units of the least growth that matters; `kind` is one of NOISES.
    """
    plan = Plan()
    source = random.Random(seed)  # noqa: S311 -- a simulation that gives the same table each time
    counts: Counter[str] = Counter()
    for _ in range(trials):
        errors = NOISES[kind](source)
        figures = [truth + noise * next(errors) for _ in range(plan.most_rounds)]
        # The second measure is constant: it takes its share of the level, but gives no alarms of its own.
        quiet = [0.0] * plan.most_rounds
        both = {Measure.GROWTH: figures, Measure.REMAINS: quiet}
        counts[_VERDICTS[decide(both, dict.fromkeys(both, 1.0), plan).decision]] += 1
    return {verdict: counts[verdict] / trials for verdict in ("accused", "acquitted", "open")}


_VERDICTS = {
    Decision.LEAK: "accused",
    Decision.UNBOUNDED: "accused",
    Decision.BOUNDED: "acquitted",
    Decision.INCONCLUSIVE: "open",
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m diagnostics.proof.study.rates")
    parser.add_argument("--trials", type=int, default=2000)
    arguments = parser.parse_args(argv)
    print(f"truth and noise in units of the least growth; {arguments.trials} trials each; plan {Plan()}")
    print(f"{'noise between rounds':<22}{'size':>6}{'truth':>7}{'accused':>10}{'acquitted':>11}{'open':>8}")
    for kind in NOISES:
        for noise in (0.1, 0.5):
            for truth in (0.0, 0.5, 1.0, 2.0, 4.0):
                shares = rates(truth, noise, kind, trials=arguments.trials)
                cells = f"{shares['accused']:>10.1%}{shares['acquitted']:>11.1%}{shares['open']:>8.1%}"
                print(f"{kind:<22}{noise:>6}{truth:>7}{cells}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
