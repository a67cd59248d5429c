"""One seed: which streams are asked for, where they are cut off, and what happens to the replicas and to Redis meanwhile."""

from __future__ import annotations

import asyncio
import math
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
# What the relays' warnings say about what became of a stream.
TELLING = ("not copied", "redis is away", "redis answers", "is gone")


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


class Meanwhile:
    """What happens to the replicas and to Redis while the clients are there, and what that excuses. Times since 1970."""

    def __init__(self, plan: Plan, cluster: Cluster, redis: Redis) -> None:
        self._plan, self._cluster, self._redis = plan, cluster, redis
        self._killed_at = self._away_from = self._away_until = math.inf
        self.drained_with: int | None = None

    async def happen(self) -> None:
        await asyncio.gather(self._kill(), self._drain(), self._restart_redis())

    def fate(self, client: Client) -> str:
        """What became of the relay of a client's stream: `killed`, `drained`, or `lived`: it came after one of those."""
        number = [self._cluster.address(number) for number in range(2)].index(client.owner)
        # nginx may read a head a moment after its relay's end, and long before another one has its port.
        if client.owned_at > self._cluster.ended_at[number] + READ_SECONDS:
            return "lived"
        return "killed" if number == self._plan.killed else "drained"

    def excuses(self, client: Client) -> bool:
        """Whether a stream may have ended as it did: those of the relay that was killed, with the error that says so."""
        if client.outcome == "whole":
            return True
        if self.fate(client) != "killed":
            return False
        return client.outcome == "stream_broken" or (
            client.outcome == "stream_not_found" and self._had_no_time(client.owned_at)
        )

    def _had_no_time(self, begun: float) -> bool:
        """Whether the killed relay may not have copied anything of a stream."""
        while_away = begun > self._away_from - COPIED_SECONDS and self._killed_at < self._away_until + COPIED_SECONDS
        return self._killed_at - begun < COPIED_SECONDS or while_away

    async def _kill(self) -> None:
        await asyncio.sleep(self._plan.killed_at)
        self._killed_at = time.time()
        await asyncio.to_thread(self._cluster.replace, self._plan.killed, signal.SIGKILL)

    async def _drain(self) -> None:
        await asyncio.sleep(self._plan.drained_at)
        self.drained_with = await asyncio.to_thread(self._cluster.replace, self._plan.drained, signal.SIGTERM)

    async def _restart_redis(self) -> None:
        await asyncio.sleep(self._plan.redis_at)
        self._away_from = time.time()
        await asyncio.to_thread(self._redis.restart, self._plan.redis_by, self._plan.redis_away)
        self._away_until = time.time() + RECONNECTED_SECONDS


async def run_seed(cluster: Cluster, redis: Redis, seed: int, streams: int) -> Outcome:
    """Let the seed's clients loose, end relays and Redis under them, and look at what each of them got."""
    plan = plan_of(seed, streams)
    outcome = Outcome(seed, streams)
    paid = await asyncio.to_thread(cluster.asked)
    clients = [Client(wanted, cluster.port) for wanted in plan.wanted]
    meanwhile = Meanwhile(plan, cluster, redis)
    happening = asyncio.create_task(meanwhile.happen())
    results = await asyncio.gather(*(client.run() for client in clients), return_exceptions=True)
    await happening
    if meanwhile.drained_with != 0:
        outcome.wrong.append(f"the relay that was told to end ended with {meanwhile.drained_with}")
    for number, (client, result) in enumerate(zip(clients, results, strict=True)):
        if isinstance(result, BaseException) and not isinstance(result, Wrong):
            raise result
        outcome.connections += len(client.story)
        if isinstance(result, Wrong) or not meanwhile.excuses(client):
            fate = meanwhile.fate(client) if client.owner else "no relay"
            which = f"stream {number} ({client.wanted.route}, {client.wanted.way}, its relay: {fate})"
            outcome.wrong.append(f"{which}: {result or 'ended with ' + client.outcome}: {client.story}")
            outcome.counts["WRONG"] += 1
        else:
            outcome.counts[client.outcome] += 1
    outcome.paid = await asyncio.to_thread(cluster.asked) - paid
    told = cluster.logs()
    outcome.wrong += [f"the log has {word!r}" for word in ("Traceback", "has a bug") if word in told]
    if outcome.wrong:
        outcome.wrong += [f"logged: {line}" for line in told.splitlines() if any(word in line for word in TELLING)]
    return outcome
