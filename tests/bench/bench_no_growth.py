"""How often each "does not grow" of a verdict is wrong, over simulated services whose slope is known.

    python tests/bench/bench_no_growth.py [--series N] [--write docs/verdict.md]
    python tests/bench/bench_no_growth.py --noise 'levels that change' --seconds 2700 --series 1000

Each kind of noise is tried at slopes from none to twice what matters, as wide as decides at once and as wide as hardly does.
Whole verdicts are made, with their windows and all series. A figure of "held" is of all verdicts asked for, also those that
said something else. `--write` puts the table between the page's markers.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "diagnostics" / "analysis"))

from series import NOISES
from statements import STATEMENTS, TRUTHS, Outcome, simulate

BEGIN, END = "<!-- no-growth: begin -->", "<!-- no-growth: end -->"
# Seconds of readings, one a second; longer recordings are tried less often.
LENGTHS = {150: 1.0, 600: 0.5, 2700: 0.15}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--series", type=int, default=400, help="of each kind of noise at 150 s (%(default)d)")
    parser.add_argument("--noise", choices=NOISES, help="this kind only")
    parser.add_argument("--seconds", type=int, help="recordings of this length only, and --series of them")
    parser.add_argument("--write", type=Path, help="the page whose table is made anew")
    arguments = parser.parse_args()
    counts = {seconds: max(10, round(arguments.series * share)) for seconds, share in LENGTHS.items()}
    if arguments.seconds:
        counts = {arguments.seconds: arguments.series}
    table = told(counts, [arguments.noise] if arguments.noise else list(NOISES))
    print(table)
    if arguments.write and not (arguments.noise or arguments.seconds):
        page = arguments.write.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, found, after = rest.partition(END)
        if not found:
            raise SystemExit(f"{arguments.write} has no {BEGIN} and {END}")
        arguments.write.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def told(counts: dict[int, int], noises: list[str]) -> str:
    """The table for so many series of each of these noises by the seconds of readings."""
    names = ("none", *(f"{truth:g}" for truth in TRUTHS[1:]))
    head = "| it is said that | readings | said, at a true slope of " + " / ".join(names) + " | held | held, at worst |"
    rows = [head, "|---|---|---|---|---|"]
    for seconds, count in counts.items():
        for statement, cells in simulate(seconds, count, noises=noises).items():
            at = {truth: sum((cells[key] for key in cells if key[1] == truth), Outcome()) for truth in TRUTHS}
            said = " / ".join(f"{one.said / one.asked:.1%}" for one in at.values())
            everything = sum(at.values(), Outcome())
            (noise, truth), worst = min(cells.items(), key=lambda item: item[1].held)
            where = f": {noise}, {truth:g}" if worst.wrong else ""
            at_worst = f"{worst.asked - worst.wrong} of {worst.asked}{where}"
            rows.append(f"| {statement} | {seconds} s, {count} series | {said} | {everything.held:.1%} | {at_worst} |")
    assert len(rows) == 2 + len(counts) * len(STATEMENTS)
    return "\n".join(rows)


if __name__ == "__main__":
    main()
