"""Many seeds, one after the other, on one relay as long as it lives; what came of each stands in a journal, and in a table."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.documents import write

from .relay import Relay
from .seeds import Outcome, plan_of, run_seed
from .surroundings import Surroundings

__all__ = ["main", "run_seeds", "table"]

VARIANT_WORDS = {
    "": "one process, one upstream",
    "workers": "two workers",
    "refused": "before its upstream one that refuses connections",
    "no_such_name": "before its upstream one whose name does not exist",
    "certificate_of_nobody": "before its upstream one whose certificate nobody vouches for",
    "speaks_no_tls": "before its upstream one that speaks no TLS",
}
MARKS = ("<!-- chaos: written by make chaos-seeds -->", "<!-- end of chaos -->")


async def run_seeds(seeds: Iterable[int], surroundings: Surroundings) -> list[Outcome]:
    """Each seed's outcome, in their order."""
    return [outcome async for outcome in _run(seeds, surroundings)]


async def _run(seeds: Iterable[int], surroundings: Surroundings):  # type: ignore[no-untyped-def]  # an async generator
    # Who is told to end while a relay starts has to end that one as well: the thread that starts it cannot be cancelled.
    started: Future[Relay] | None = None
    with ThreadPoolExecutor(1) as thread:
        try:
            for seed in seeds:
                variant = plan_of(seed).variant
                if started is not None and started.result().variant != variant:
                    await asyncio.to_thread(started.result().end)
                    started = None
                if started is None:
                    started = thread.submit(Relay.start, surroundings, variant)
                    await (await asyncio.wrap_future(started)).settle()
                relay = started.result()
                outcome = await run_seed(relay, seed)
                yield outcome
                if outcome.wrong or relay.process.poll() is not None:  # the next seed gets one that owes nothing
                    await asyncio.to_thread(relay.end)
                    started = None
        finally:
            if started is not None and not started.cancelled():
                started.result().end()


def table(lines: Iterable[dict[str, object]]) -> str:
    """The journal as a table in Markdown: a row for each kind of fault."""
    seeds: set[int] = set()
    by_fault: dict[str, Counter[str]] = {}
    clients: Counter[str] = Counter()
    events: dict[str, Counter[str]] = {}
    variants: Counter[str] = Counter()
    wrong = late = 0
    for line in lines:
        seed = line["seed"]
        assert isinstance(seed, int)
        seeds.add(seed)
        variants[str(line["variant"])] += 1
        complaints = line["wrong"]
        seen = line["seen"]
        assert isinstance(complaints, list)
        happened = line["events"]
        assert isinstance(seen, list)
        assert isinstance(happened, list)
        for event, said in happened:
            events.setdefault(event, Counter())["left out" if said.startswith("left out") else "done"] += 1
        wrong += bool(complaints)
        late += bool(line["late"])
        for client, fault, what in seen:
            clients[client] += 1
            row = by_fault.setdefault(fault, Counter())
            row["clients"] += 1
            row["whole"] += str(what).split("+")[0] == "whole"
            row["wrong"] += str(what).startswith("WRONG")
    rows = [
        f"{len(seeds)} seeds with {sum(clients.values())} clients of {len(clients)} kinds, {len(by_fault)} kinds of answers.",
        f"Seeds after which anything was not as it should be: {wrong}.",
        f"In {late} seeds the machine left the clients without a processor for more than a second: their answers may be cut,",
        "since the relay waits for nobody for ever, but not other than what was sent.",
        "",
        "| the upstream | clients | streams whole and exact | clients that saw what they may not |",
        "|---|---|---|---|",
    ]
    rows += [
        f"| {fault} | {row['clients']} | {row['whole']} | {row['wrong']} |" for fault, row in sorted(by_fault.items())
    ]
    rows += ["", "| meanwhile | seeds | left out, since this machine cannot do it |", "|---|---|---|"]
    rows += [f"| {event} | {count['done']} | {count['left out']} |" for event, count in sorted(events.items())]
    rows += ["", "| the relay | seeds |", "|---|---|"]
    rows += [f"| {VARIANT_WORDS[variant]} | {count} |" for variant, count in sorted(variants.items())]
    rows += ["", "Clients: " + ", ".join(f"{count} {client}" for client, count in sorted(clients.items())) + "."]
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one again, and tell every client")
    parser.add_argument("--seeds", type=int, default=1000, help="how many, from 0 on (default 1000)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no seed after so long")
    parser.add_argument(
        "--jobs", type=int, default=1, help="relays at once, each with an upstream and a Redis of its own"
    )
    parser.add_argument("--journal", type=Path, default=Path("report/chaos.jsonl"), help="where outcomes are kept")
    parser.add_argument("--write", type=Path, help="put the table of the journal into this document")
    options = parser.parse_args()
    # It warns of each write to a relay that has closed the connection.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    # What it made (mounts, cgroups, processes) goes with it when it is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as started:
        surroundings = [started.enter_context(Surroundings.started()) for _ in range(options.jobs)]
        if options.seed is not None:
            (outcome,) = asyncio.run(run_seeds([options.seed], surroundings[0]))
            for client, fault, seen in outcome.seen:
                print(f"{client:22} {fault:32} {seen}")
            for event, said in outcome.events:
                print(f"{event:22} {said}")
            print(*outcome.wrong or ["nothing is wrong"], sep="\n")
            return bool(outcome.wrong)
        options.journal.parent.mkdir(parents=True, exist_ok=True)
        failed = asyncio.run(_many(options, surroundings))
    if options.write:
        write(options.write, table(_read(options.journal)), MARKS)
    return failed


async def _many(options: argparse.Namespace, surroundings: list[Surroundings]) -> int:
    done = {line["seed"] for line in _read(options.journal)}
    until = time.monotonic() + options.seconds

    def left() -> Iterator[int]:
        for seed in range(options.seeds):
            if seed not in done and time.monotonic() < until:
                yield seed

    failed = 0
    seeds = left()

    async def run_some(around: Surroundings) -> None:
        nonlocal failed
        async for outcome in _run(seeds, around):
            journal.write(json.dumps(vars(outcome)) + "\n")
            journal.flush()
            for wrong in outcome.wrong:
                print(f"seed {outcome.seed}: {wrong}\n  again: python -m tests.chaos --seed {outcome.seed}", flush=True)
            failed += bool(outcome.wrong)
            if sys.stdout.isatty() or outcome.seed % 25 == 0:
                print(f"seed {outcome.seed} done, {failed} failed", flush=True)

    with options.journal.open("a") as journal:
        await asyncio.gather(*(run_some(around) for around in surroundings))
    return bool(failed)


def _read(journal: Path) -> list[dict[str, object]]:
    if not journal.exists():
        return []
    return [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
