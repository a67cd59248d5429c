"""How often series without a trend are called growing: `python tests/bench/bench_trend.py [--series 1500]`."""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "diagnostics" / "analysis"))

from series import TRENDLESS, filled_once

from diagnostics.analysis.trend import trend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=1500)
    parser.add_argument("--seconds", type=int, default=360)
    parser.add_argument("--level", type=float, default=0.05)
    arguments = parser.parse_args()
    print("| series | growing | settled | shrinking |\n|---|---|---|---|")
    for name, make in {**TRENDLESS, "a cache that fills once, within a third of the time": filled_once}.items():
        rng = random.Random(1)
        states = Counter(
            trend(list(enumerate(make(rng, arguments.seconds))), level=arguments.level).state
            for _ in range(arguments.series)
        )
        shares = " | ".join(f"{states[state] / arguments.series:.1%}" for state in ("growing", "settled", "shrinking"))
        print(f"| {name} | {shares} |")


if __name__ == "__main__":
    main()
