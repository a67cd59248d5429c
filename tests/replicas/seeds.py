"""One seed: which streams are asked for, where they are cut off, and what happens to the replicas and to Redis meanwhile."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

from .clients import Client, Wanted, Wrong
from .cluster import Cluster, Redis

__all__ = ["Outcome", "Plan", "plan_of", "run_seed"]

# How long a relay may take to copy a new stream to Redis, and to find a Redis that is back, on a machine that is as busy as
# this run makes it: a stream of a relay that is killed before is not known to the other one.
COPIED_SECONDS = 3.0
RECONNECTED_SECONDS = 3.0
READ_SECONDS = 0.5


@dataclass(frozen=True)
class Plan:
    """Times in seconds after the beginning.

    killed, drained   which relay, the first or the second, gets SIGKILL, and which one SIGTERM: never the same
    redis_by          the signal by which Redis ends, and for how long it is away
    """

    wanted: tuple[Wanted, ...]
    killed: int
    killed_at: float
    drained_at: float
    redis_at: float
    redis_by: int
    redis_away: float

    @property
    def drained(self) -> int:
        return 1 - self.killed


@dataclass
class Outcome:
    """What came of it.

    counts   streams by how they ended: `whole`, or the code of the error
    paid     answers that the upstream was asked for
    wrong    what must not be, in words
    """

    seed: int
    streams: int
    counts: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    paid: int = 0
    wrong: list[str] = field(default_factory=list)


def plan_of(seed: int, streams: int) -> Plan:
    """The same for the same seed and number of streams, always."""
    chance = random.Random(seed)
    return Plan(
        wanted=tuple(Wanted.of(chance) for _ in range(streams)),
        killed=chance.randrange(2),
        killed_at=chance.uniform(1.0, 7.0),
        drained_at=chance.uniform(1.0, 7.0),
        redis_at=chance.uniform(0.5, 8.0),
        redis_by=chance.choice((signal.SIGKILL, signal.SIGTERM)),
        redis_away=chance.choice((0.0, chance.uniform(0.1, 1.5))),
    )


async def run_seed(cluster: Cluster, redis: Redis, seed: int, streams: int) -> Outcome:
    """Let the seed's clients loose, end relays and Redis under them, and look at what each of them got."""
    plan = plan_of(seed, streams)
    outcome = Outcome(seed, streams)
    paid = await asyncio.to_thread(cluster.asked)
    killed_at = float("inf")
    away = [float("inf"), float("inf")]  # of Redis: from when, until when

    async def kill() -> None:
        nonlocal killed_at
        await asyncio.sleep(plan.killed_at)
        killed_at = time.time()
        await asyncio.to_thread(cluster.replace, plan.killed, signal.SIGKILL)

    async def drain() -> None:
        await asyncio.sleep(plan.drained_at)
        code = await asyncio.to_thread(cluster.replace, plan.drained, signal.SIGTERM)
        if code != 0:
            outcome.wrong.append(f"the relay that was told to end ended with {code}")

    async def restart_redis() -> None:
        await asyncio.sleep(plan.redis_at)
        away[0] = time.time()
        await asyncio.to_thread(redis.restart, plan.redis_by, plan.redis_away)
        away[1] = time.time() + RECONNECTED_SECONDS

    def had_no_time(begun: float) -> bool:
        """Whether the killed relay may not have copied a stream at all."""
        return killed_at - begun < COPIED_SECONDS or (
            begun > away[0] - COPIED_SECONDS and killed_at < away[1] + COPIED_SECONDS
        )

    clients = [Client(wanted, cluster.port) for wanted in plan.wanted]
    # With its own relay killed, a stream may end with the error that says so; every other one has to be whole.
    doomed = cluster.address(plan.killed)
    events = [asyncio.create_task(work()) for work in (kill, drain, restart_redis)]
    results = await asyncio.gather(*(client.run() for client in clients), return_exceptions=True)
    for result in await asyncio.gather(*events, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
    for number, (client, result) in enumerate(zip(clients, results, strict=True)):
        outcome.connections += len(client.story)
        # nginx may read a head a moment after its relay's end, and long before another one has its port.
        may_break = client.owner == doomed and client.owned_at <= cluster.ended_at[plan.killed] + READ_SECONDS
        what = client.outcome
        if isinstance(result, Wrong):
            what = f"WRONG: {result}"
        elif isinstance(result, BaseException):
            raise result
        elif what == "stream_not_found" and may_break and had_no_time(client.owned_at):
            pass
        elif what != "whole" and not (what == "stream_broken" and may_break):
            what = f"WRONG: ended with {what}"
        outcome.counts[what.partition(":")[0]] += 1
        if what.startswith("WRONG"):
            fate = "killed" if may_break else "drained" if client.owner == cluster.address(plan.drained) else "other"
            which = f"stream {number} ({client.wanted.route}, {client.wanted.way}, of the {fate} relay)"
            outcome.wrong.append(f"{which}: {what}: {client.story}")
    outcome.paid = await asyncio.to_thread(cluster.asked) - paid
    told = cluster.logs()
    outcome.wrong += [f"the log has {word!r}" for word in ("Traceback", "has a bug") if word in told]
    return outcome
