"""The relay side by side with its peers: CPU per event, throughput, memory per stream, latency.

    python tests/bench/bench_relay.py [--quick] [--rounds N] [--peers bare,sdk,...] [--loads paced,...] [--json FILE]
    python tests/bench/bench_relay.py --relay-from DIR [--rounds N] [--loads paced,burst]

One core for the relay under test, the other for upstream and clients. Rounds are interleaved: each round measures every
peer once, so that a change of the machine's speed meets all alike; medians and ranges are printed, and ratios to `bare`
taken round by round. Every event is checked on arrival; what is missing, late, out of order or damaged is told.

With --relay-from, the relay of this checkout is compared with that of another: `bare`, `relay` and `relay@DIR` are started
once and stay, and many short rounds alternate between them. CPU time is what it measures, so it can be used while the
machine has other work: that disturbs caches, and all three alike. Memory has no meaning there.

Needs Go (Debian: golang-go) to build the traffic, and nginx for its row.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from sidebyside.loads import LOADS, SHORT
from sidebyside.peers import PEERS
from sidebyside.processes import TRAFFIC_CORE
from sidebyside.report import table
from sidebyside.rounds import run
from sidebyside.traffic import traffic


def main() -> int:
    arguments = _parser().parse_args()
    peers = arguments.peers.split(",") if arguments.peers else list(PEERS)
    names, rounds = ["paced", "burst", "thousand"], 5
    if arguments.relay_from:
        peers = ["bare", "relay", *(f"relay@{checkout}" for checkout in arguments.relay_from)]
    if arguments.quick or arguments.relay_from:
        names = ["paced", "burst"]
        rounds = 1 if arguments.quick else 8
    if arguments.loads:
        names = arguments.loads.split(",")
    loads = {name: (SHORT if arguments.relay_from else LOADS)[name] for name in names}
    os.sched_setaffinity(0, {TRAFFIC_CORE})
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, traffic(Path(folder)) as running:
        results = run(
            peers, loads, arguments.rounds or rounds, running, Path(folder), staying=bool(arguments.relay_from)
        )
        print("\nspans that the collector was sent:", json.dumps(running.spans()))
    for name, load in loads.items():
        print(table(name, load, {peer: results[peer, name] for peer in peers}))
    if arguments.json:
        found = {f"{peer}/{name}": [vars(one) for one in runs] for (peer, name), runs in results.items()}
        arguments.json.write_text(json.dumps(found, indent=1))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of the small loads")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--peers")
    parser.add_argument("--loads")
    parser.add_argument("--relay-from", type=Path, action="append", metavar="DIR", help="another checkout; repeatable")
    parser.add_argument("--json", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(main())
