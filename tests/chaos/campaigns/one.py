"""One campaign, in a process of its own: a line of JSON on standard output after each mix, and one at its end.

python -m tests.chaos.campaigns.one mix 0 50 SECONDS        mixes 0 to 49
python -m tests.chaos.campaigns.one redis_killed 0 50 SECONDS
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..relay import Relay, cpu_seconds_of
from ..seeds import Outcome, Plan, run_seed
from ..surroundings import Surroundings
from .growth import grows
from .mixes import mix_of, trouble_of

__all__ = ["MIX", "main", "plan_of", "rounds"]

MIX = "mix"
# Busy clients at a time: more of them make each slower, and no mix faster.
AT_ONCE = 16
SPREAD_SECONDS = 1.5
# Connections to the upstream may be kept for a while, one of each client that was there at once.
MOST_KEPT = 300


def plan_of(what: str, number: int) -> Plan:
    """A mix, or a small one beside which `what` happens to the machine."""
    return mix_of(number) if what == MIX else trouble_of(what, number)


@contextlib.contextmanager
def started(surroundings: Surroundings, variant: str) -> Iterator[Relay]:
    """A relay, which is ended also where this process is told to end while it starts."""
    with ThreadPoolExecutor(1) as thread:
        starting = thread.submit(Relay.start, surroundings, variant)
        try:
            relay = starting.result()
            relay.most_kept = MOST_KEPT
            yield relay
        finally:
            if starting.exception() is None:
                starting.result().end()


async def run(relay: Relay, what: str, number: int) -> Outcome:
    """One mix, on a relay that has come to rest once."""
    return await run_seed(relay, number, plan_of(what, number), AT_ONCE, SPREAD_SECONDS)


def rounds(what: str, numbers: range, until: float) -> Iterator[dict[str, Any]]:
    """Each mix's line, and each relay's, which ends after a mix that complains. `until` by time.monotonic."""
    left = iter(numbers)
    number = next(left, None)
    with Surroundings.started() as surroundings:
        while number is not None and time.monotonic() < until:
            variant = plan_of(what, number).variant
            rss: list[int] = []
            with started(surroundings, variant) as relay, asyncio.Runner() as runner:
                runner.run(relay.settle())
                while number is not None and time.monotonic() < until:
                    before = cpu_seconds(relay)
                    outcome = runner.run(run(relay, what, number))
                    ended = relay.process.poll() is not None
                    line = line_of(what, outcome)
                    if not outcome.events:
                        line["cpu"] = [
                            round(after - used, 2) for used, after in zip(before, cpu_seconds(relay), strict=True)
                        ]
                    rss += [] if ended else [relay.read_rss()]
                    yield line
                    number = next(left, None)
                    if ended or outcome.wrong:
                        break
            wrong = grows(rss)
            yield {"relay": variant, "what": what, "rss": rss, "wrong": [wrong] if wrong else []}


def cpu_seconds(relay: Relay) -> list[float]:
    """Of the relay's processes that serve, the upstream's, and this one's, in which clients are."""
    return [relay.cpu_seconds(), cpu_seconds_of(relay.surroundings.upstream_pid), time.process_time()]


def line_of(what: str, outcome: Outcome) -> dict[str, Any]:
    """An outcome as it is told: clients that saw the same are counted together, and not those that were excused."""
    counted = [seen for at, seen in enumerate(outcome.seen) if at not in outcome.excused or seen[2].startswith("WRONG")]
    return {
        "what": what,
        "number": outcome.seed,
        "variant": outcome.variant,
        "excused": len(outcome.excused),
        "exact": outcome.exact,
        "wrong": outcome.wrong,
        "events": outcome.events,
        "seen": [[*seen, count] for seen, count in Counter(counted).items()],
    }


def main() -> int:
    what, first, end, seconds = sys.argv[1:]
    logging.getLogger("asyncio").setLevel(
        logging.ERROR
    )  # it warns of each write to a relay that has closed the connection
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = 0
    for line in rounds(what, range(int(first), int(end)), time.monotonic() + float(seconds)):
        print(json.dumps(line), flush=True)
        failed += bool(line["wrong"])
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
