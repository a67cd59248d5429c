"""Many seeds, one after the other; what came of each stands in a journal, and in a table."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.documents import write

from .cluster import Cluster, Redis
from .seeds import Outcome, run_seed

__all__ = ["main", "table"]

MARKS = ("<!-- replicas: written by make replicas -->", "<!-- end of replicas -->")


def table(lines: Iterable[dict[str, Any]]) -> str:
    """The journal as a table in Markdown: a row for each way in which streams ended."""
    counts: Counter[str] = Counter()
    seeds, streams, connections, paid, wrong = 0, 0, 0, 0, 0
    for line in lines:
        seeds += 1
        streams += line["streams"]
        connections += line["connections"]
        paid += line["paid"]
        wrong += bool(line["wrong"])
        counts.update(line["counts"])
    words = {
        "whole": "every event once, in order, and the upstream's text",
        "stream_broken": "its relay was killed: every event up to one, once and in order, and `stream_broken`",
        "stream_not_found": "its relay was killed before it had copied anything, and `stream_not_found`",
        "WRONG": "anything else",
    }
    load = f"on {os.cpu_count()} cores, load average at the end {os.getloadavg()[0]:.1f}"
    rows = [
        f"{seeds} seeds with {streams:,} streams over {connections:,} connections, {load}.",
        f"The upstream was asked for {paid:,} answers. Seeds after which anything was not as it should be: {wrong}.",
        "",
        "| the client got | streams |",
        "|---|---|",
    ]
    return "\n".join([*rows, *(f"| {text} | {counts[name]:,} |" for name, text in words.items())])


@contextmanager
def closed(redis: Redis) -> Iterator[Redis]:
    """Redis, ended after the `with` block."""
    try:
        yield redis
    finally:
        redis.end()


async def _seeds(
    pending: Iterator[int], options: argparse.Namespace, until: float, over: Callable[[Outcome], None]
) -> None:
    """Run seeds on one cluster, until none is pending. After one that went wrong, all processes are made anew."""
    while time.monotonic() < until and (seed := next(pending, None)) is not None:
        with ExitStack() as opened:
            redis, cluster = await asyncio.to_thread(_started, opened)
            while seed is not None:
                outcome = await run_seed(cluster, redis, seed, options.streams)
                over(outcome)
                seed = None if outcome.wrong or time.monotonic() >= until else next(pending, None)


def _started(opened: ExitStack) -> tuple[Redis, Cluster]:
    folder = Path(opened.enter_context(TemporaryDirectory(prefix="replicas-")))
    redis = opened.enter_context(closed(Redis(folder)))
    return redis, opened.enter_context(Cluster.started(folder, redis.url))


async def _run(options: argparse.Namespace, seeds: Iterable[int]) -> int:
    """Returns how many seeds went wrong."""
    failed = 0
    options.journal.parent.mkdir(parents=True, exist_ok=True)

    def over(outcome: Outcome) -> None:
        nonlocal failed
        _tell(outcome)
        failed += bool(outcome.wrong)
        if options.seed is None:
            with options.journal.open("a", encoding="utf-8") as journal:
                journal.write(json.dumps(vars(outcome)) + "\n")

    pending, until = iter(seeds), time.monotonic() + options.seconds
    async with asyncio.TaskGroup() as clusters:
        for _ in range(options.clusters):
            clusters.create_task(_seeds(pending, options, until, over))
    return failed


def _tell(outcome: Outcome) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in sorted(outcome.counts.items()))
    print(f"seed {outcome.seed}: {counts}; {outcome.connections} connections, {outcome.paid} answers paid", flush=True)
    for line in outcome.wrong:
        print(f"  {line}", flush=True)
    if outcome.wrong:
        again = f"python -m tests.replicas --seed {outcome.seed} --streams {outcome.streams}"
        print(f"  FAILED; to run it again: {again}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.replicas", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one again")
    parser.add_argument("--seeds", type=int, default=1000, help="how many, from 0 on (default 1000)")
    parser.add_argument("--streams", type=int, default=200, help="of each seed (default 200)")
    parser.add_argument(
        "--clusters",
        type=int,
        default=1,
        help="at the same time, each with a seed of its own, of which most is waiting",
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no seed after so long")
    parser.add_argument("--journal", type=Path, default=Path("report/replicas.jsonl"), help="where outcomes are kept")
    parser.add_argument("--write", type=Path, help="put the table of the journal into this document")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it has started ends with it
    if options.seed is not None:
        return 1 if asyncio.run(_run(options, [options.seed])) else 0
    done = {line["seed"] for line in _lines(options.journal)}
    failed = asyncio.run(_run(options, (seed for seed in range(options.seeds) if seed not in done)))
    if options.write is not None:
        write(options.write, table(_lines(options.journal)), MARKS)
    return 1 if failed else 0


def _lines(journal: Path) -> list[dict[str, Any]]:
    text = journal.read_text(encoding="utf-8") if journal.exists() else ""
    return [json.loads(line) for line in text.splitlines()]
