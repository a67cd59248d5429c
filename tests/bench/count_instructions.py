"""Instructions per event and per stream of the relay and of the bare pass-through, counted by valgrind.

    python tests/bench/count_instructions.py [--relay-from DIR ...] [--with 'RELAY_RESUME=memory' ...] [--json FILE]
    python tests/bench/count_instructions.py --functions 40    # also the functions that take most of each phase
    python tests/bench/count_instructions.py --no-parts        # the first table alone, in half the time

The figure is the same to half a per cent on every run, also while the machine has other work: what one change of the code
costs can be read from it. Needs valgrind (Debian: valgrind).

The further tables divide a stream of one event into opening (connected, asked for, the first event has come), ending (the end
marker and the answer's end have come, spans and log line are made) and closing (the client closes its connection), and each
into the parts of the service (sidebyside/parts.py): instructions, and Python frames that were entered. They are counted in a
run of its own, which takes a C compiler and Python's headers. What noting a frame adds is measured and taken off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from pathlib import Path

from sidebyside.by_part import noted_all
from sidebyside.instructions import SHAPES, WHOLE, count_all
from sidebyside.parts import Spent, functions_table, table
from sidebyside.processes import ROOT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay-from", type=Path, action="append", default=[], metavar="DIR", help="another checkout")
    parser.add_argument(
        "--with",
        action="append",
        default=[],
        metavar="SETTINGS",
        dest="settings",
        help="a relay with these: 'NAME=VALUE ...'",
    )
    parser.add_argument("--no-parts", action="store_true", help="nothing by part")
    parser.add_argument(
        "--functions", type=int, default=0, metavar="N", help="the N functions that take most of each phase"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("the instructions are counted by valgrind: apt-get install valgrind")
    checkouts = {"bare": ROOT, "relay": ROOT} | {f"relay@{folder}": folder.resolve() for folder in arguments.relay_from}
    settings = {f"relay {words}": dict(word.split("=", 1) for word in words.split()) for words in arguments.settings}
    checkouts |= dict.fromkeys(settings, ROOT)
    found = asyncio.run(count_all(checkouts, settings))
    columns = [*SHAPES, WHOLE]
    print(
        f"| instructions per event, and per stream of one | {' | '.join(f'{column} | to bare' for column in columns)} |"
    )
    print(f"|---|{'---|' * 2 * len(columns)}")
    for name, counts in found.items():
        cells = [f"{counts[column]:,.0f} | {counts[column] / found['bare'][column]:.3f}" for column in columns]
        print(f"| {name} | {' | '.join(cells)} |")
    if not arguments.no_parts:
        for peer, phases in asyncio.run(noted_all(checkouts, settings)).items():
            print(f"\n{table(peer, phases)}")
            _print_functions(phases, arguments.functions)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


def _print_functions(phases: dict[str, Spent], rows: int) -> None:
    for phase, counted in phases.items() if rows else ():
        print(f"\n{phase}, the functions with the most instructions of their own, with the C below them:\n")
        print(functions_table(counted, rows))


if __name__ == "__main__":
    sys.exit(main())
