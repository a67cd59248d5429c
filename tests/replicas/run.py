"""Many seeds, one after the other or side by side; what came of them stands in record.json, and in a table."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.documents import write

from .cluster import Cluster, Redis
from .record import MARKS, Record, table
from .seeds import Outcome, run_seed

__all__ = ["closed", "main", "run_seeds"]


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


async def run_seeds(options: argparse.Namespace, seeds: Iterable[int], record: Record | None = None) -> int:
    """Run these, on `options.clusters` clusters side by side. Returns how many went wrong."""
    failed = 0

    def over(outcome: Outcome) -> None:
        nonlocal failed
        _tell(outcome)
        failed += bool(outcome.wrong)
        if record is not None:
            record.add(outcome)

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
    parser.add_argument("--write", type=Path, help="put the table of all that were run into this document")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it has started ends with it
    if options.seed is not None:
        return 1 if asyncio.run(run_seeds(options, [options.seed])) else 0
    record = Record()
    done = record.done()
    failed = asyncio.run(run_seeds(options, (seed for seed in range(options.seeds) if seed not in done), record))
    if options.write is not None:
        write(options.write, table(record.entries), MARKS)
    return 1 if failed else 0
