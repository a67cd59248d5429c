"""How often the interval of a slope holds the true one, for each kind of noise, and how often "does not grow" is wrong.

    python tests/bench/bench_drift.py [SERIES]

`above` is the share of series whose whole interval lay below the true slope: so often a bound on growth is wrong. At a level
of 5 % for both sides it may be 2.5 % of them. `half` is half of the interval's median width, in standard deviations of
the noise of one reading, a second.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "diagnostics" / "analysis"))

from series import NOISES

from diagnostics.analysis.drift import drift


def main(series: int) -> None:
    for seconds in (90, 450, 2700):
        print(f"{seconds} s of readings, {series} series each")
        print(f"  {'noise':45s} {'held':>6s} {'above':>6s} {'below':>6s} {'half':>9s}")
        for name, make in NOISES.items():
            rng = random.Random(7)
            found = [drift(list(enumerate(make(rng, seconds)))) for _ in range(series)]
            told = [each for each in found if each is not None]
            above = sum(each.high < 0 for each in told) / len(told)
            below = sum(each.low > 0 for each in told) / len(told)
            half = median((each.high - each.low) / 2 for each in told)
            print(f"  {name:45s} {1 - above - below:6.1%} {above:6.1%} {below:6.1%} {half:9.5f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
