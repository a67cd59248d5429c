"""The relay side by side with its peers: CPU per event, throughput, memory per stream, latency, life cycle.

    python tests/bench/bench_relay.py [--quick] [--rounds N] [--peers bare,relay,...] [--cases paced,burst,...]
    python tests/bench/bench_relay.py --out report/bench [--write docs/performance.md] [--litellm DIR]
    python tests/bench/bench_relay.py --show docs/performance.json [--cases paced,short,...]
    python tests/bench/bench_relay.py --relay-from DIR [--with 'NAME=VALUE ...'] [--rounds N] [--cases paced,burst]

One core for the relay under test, the other for upstream and clients. Rounds are interleaved: each round measures every
peer once, so that a change of the machine's speed meets all alike; medians and ranges are printed, and ratios to `bare`
taken round by round. Every event is checked on arrival; what is missing, late, out of order or damaged is told.

With --relay-from, the relay of this checkout is compared with that of another; with --with, with one that has other settings,
such as OTEL_TRACES_EXPORTER=none. `bare`, `relay` and these are started once and stay, and many short rounds alternate between
them. CPU time is what it measures, so it can be used while the machine has other work: that disturbs caches, and all alike.
Memory has no meaning there.

With --write, the page gets the table of peers and the limits; all figures of all cases go into a data file of its name beside
it (JSON), and --show prints them as tables.

Needs Go (Debian: golang-go) to build the traffic; a peer that lacks something is named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from sidebyside.cases import CASES, SHORT_CASES, Case
from sidebyside.litellm import install, litellm_peer
from sidebyside.machine import conditions, raise_open_files, warn_if_busy
from sidebyside.peers import PEERS, missing
from sidebyside.plots import write_plots
from sidebyside.processes import TRAFFIC_CORE
from sidebyside.report import case_tables, data, peer_table, show
from sidebyside.rounds import Results, run
from sidebyside.targets import judged
from sidebyside.traffic import traffic
from sidebyside.writing import write_data, write_into

QUICK = ("short", "paced", "idle_1000")


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.show:
        print(show(arguments.show, arguments.cases.split(",") if arguments.cases else []))
        return 0
    if arguments.litellm:
        problem = install(arguments.litellm)
        if problem:
            print(f"litellm is left out: {problem}", file=sys.stderr)
        else:
            PEERS["litellm"] = litellm_peer(arguments.litellm)
    peers, cases, rounds = _plan(arguments)
    raise_open_files()
    warn_if_busy()
    os.sched_setaffinity(0, {TRAFFIC_CORE})
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, traffic(Path(folder)) as running:
        results = run(
            peers, cases, rounds, running, Path(folder), staying=bool(arguments.relay_from or arguments.settings)
        )
        spans = running.spans()
    _tell(results, cases, peers, conditions(rounds, spans), arguments)
    return 0


def _tell(
    results: Results, cases: dict[str, Case], peers: list[str], about: str, arguments: argparse.Namespace
) -> None:
    """Print the figures, and write them where they are asked for."""
    page = data(results, cases, peers, about)
    first = "\n\n".join(part for part in (about, peer_table(results, peers), judged(results)) if part)
    text = f"{first}\n\n{case_tables(page)}"
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "report.md").write_text(text + "\n", encoding="utf-8")
        found = [{"peer": peer, "case": case, "rounds": runs} for (peer, case), runs in results.items()]
        (arguments.out / "report.json").write_text(
            json.dumps({"conditions": about, "results": found}, indent=1), encoding="utf-8"
        )
        write_plots(results, peers, arguments.out)
    if arguments.write:
        plots = write_plots(results, peers, arguments.write.parent / "images", prefix="performance-")
        shown = "\n".join(f"![{plot.stem}](images/{plot.name})" for plot in plots)
        write_into(arguments.write, f"{first}\n\n{shown}")
        write_data(arguments.write.with_suffix(".json"), page)


def _plan(arguments: argparse.Namespace) -> tuple[list[str], dict[str, Case], int]:
    """Who is measured, how, and how often."""
    cases, names, rounds = CASES, list(CASES), 3
    peers = arguments.peers.split(",") if arguments.peers else list(PEERS)
    if arguments.quick:
        cases, names, rounds = CASES | SHORT_CASES, list(QUICK), 1
        peers = arguments.peers.split(",") if arguments.peers else ["nginx", "bare", "relay"]
    staying = [f"relay@{checkout}" for checkout in arguments.relay_from] + [
        f"relay {words}" for words in arguments.settings
    ]
    if staying:
        peers = ["bare", "relay", *staying]
        cases, names, rounds = SHORT_CASES, ["paced", "burst"], 8
    if arguments.cases:
        names = arguments.cases.split(",")
    unknown = [name for name in names if name not in cases]
    if unknown:
        raise SystemExit(f"no such case: {', '.join(unknown)}; there are {', '.join(cases)}")
    for peer in list(peers):
        if remedy := missing(peer):
            print(f"{peer} is left out; to have it: {remedy}", file=sys.stderr)
            peers.remove(peer)
    return peers, {name: cases[name] for name in names}, arguments.rounds or rounds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of a few cases and peers: about a minute")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--peers", help=f"of {','.join(PEERS)},litellm")
    parser.add_argument("--cases", "--loads", help=f"of {','.join(CASES)}")
    parser.add_argument(
        "--relay-from", type=Path, action="append", default=[], metavar="DIR", help="another checkout; repeatable"
    )
    parser.add_argument(
        "--with",
        action="append",
        default=[],
        metavar="SETTINGS",
        dest="settings",
        help="a relay with these; repeatable",
    )
    parser.add_argument(
        "--litellm", type=Path, metavar="DIR", help="measure LiteLLM's proxy too, installed in DIR once"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write report.md, report.json and plots there")
    parser.add_argument(
        "--show", type=Path, metavar="FILE", help="print the tables of a data file, and measure nothing"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the figures between the page's two markers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
