"""Instructions per event and per stream of the relay and of the bare pass-through, counted by valgrind.

    python tests/bench/count_instructions.py [--relay-from DIR ...] [--with 'RELAY_RESUME=memory' ...] [--json FILE]

The figure is the same to half a per cent on every run, also while the machine has other work: what one change of the code
costs can be read from it. Needs valgrind (Debian: valgrind).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from pathlib import Path

from sidebyside.instructions import SHAPES, WHOLE, count_all
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
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("the instructions are counted by valgrind: apt-get install valgrind")
    checkouts = {"bare": ROOT, "relay": ROOT} | {f"relay@{folder}": folder.resolve() for folder in arguments.relay_from}
    settings = {f"relay {words}": dict(word.split("=", 1) for word in words.split()) for words in arguments.settings}
    found = asyncio.run(count_all(checkouts | dict.fromkeys(settings, ROOT), settings))
    columns = [*SHAPES, WHOLE]
    print(
        f"| instructions per event, and per stream of one | {' | '.join(f'{column} | to bare' for column in columns)} |"
    )
    print(f"|---|{'---|' * 2 * len(columns)}")
    for name, counts in found.items():
        cells = [f"{counts[column]:,.0f} | {counts[column] / found['bare'][column]:.3f}" for column in columns]
        print(f"| {name} | {' | '.join(cells)} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
