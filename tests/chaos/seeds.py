"""One seed: which clients meet which faults, and what must be true when they are gone."""

from __future__ import annotations

import asyncio
import errno
import random
import signal
from dataclasses import dataclass, field

from .clients import CLIENTS, PATIENCE_SECONDS, Mix, Wrong
from .faults import FAULTS, HARMLESS, Script
from .relay import Relay

__all__ = ["MEMORY_BYTES", "Outcome", "Plan", "plan_of", "run_seed"]

# What the relay's memory may have grown by since it came to rest, whatever it went through: allocators keep pages.
MEMORY_BYTES = 64 * 1024 * 1024
# The relay waits three seconds for a request's head: a client that was stopped for longer than this may have been too late.
LATE_SECONDS = 1.0
# Clients that care about what they are answered; the others have enough to do with themselves.
READERS = (
    "fast", "slow", "with_a_large_body", "event_source", "pipelining", "never_reading", "leaving", "resetting", "half_closing",
)  # fmt: skip
# Faults that a whole answer can have, too.
ANSWER_FAULTS = (
    "none", "late", "early_hints", "unasked_answer", "silent", "cut_in_head", "reset_at_once", "malformed_status_line",
    "malformed_header", "endless_head", "odd_status", "refusal", "endless_refusal",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """clients   each with the script of what it asks for
    event     what happens meanwhile: nothing, `redis_killed`, `terminated`
    """

    clients: tuple[tuple[str, Script], ...]
    event: str = ""


@dataclass
class Outcome:
    """What came of it.

    seen    client, fault and what became of it
    wrong   what must not be, in words
    late    whether the clients' process was stopped for longer than a client may be: their answers may then have been cut
    """

    seed: int
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    event: str = ""
    late: bool = False


def plan_of(seed: int) -> Plan:
    """The same for the same seed, always."""
    chance = random.Random(seed)
    clients = []
    for number in range(chance.randrange(6, 18)):
        kind = chance.choice(READERS if chance.random() < 0.75 else tuple(CLIENTS))
        streams = chance.random() < 0.8 or kind == "event_source"
        faults = tuple(FAULTS) if streams else ANSWER_FAULTS
        if chance.random() < 0.3:  # else a healthy stream is rare
            faults = tuple(fault for fault in faults if fault in HARMLESS)
        count = chance.choice((1, 5, 50, 50, 400)) if streams else chance.choice((1, 10, 100, 2000))
        clients.append((kind, Script(chance.choice(faults), seed * 100 + number, count, streams)))
    event = chance.choices(("", "redis_killed", "terminated"), (90, 5, 5))[0]
    return Plan(tuple(clients), event)


async def run_seed(relay: Relay, seed: int, plan: Plan | None = None) -> Outcome:
    """Let the seed's mix loose on a relay, and look at what is left."""
    plan = plan or plan_of(seed)
    outcome = Outcome(seed, event=plan.event)
    lag = Lag()
    lagging = asyncio.create_task(lag.measure())
    chance = random.Random(-seed - 1)
    meanwhile = asyncio.create_task(_meanwhile(relay, plan.event, chance.random() * 1.5))
    await asyncio.gather(
        *(
            _run_client(
                relay,
                kind,
                outcome,
                Mix(relay.address, script, random.Random(script.seed), plan.event == "terminated", lag.late),
            )
            for kind, script in plan.clients
        )
    )
    await meanwhile
    lagging.cancel()
    outcome.late = lag.late()
    if plan.event == "terminated":
        code = await asyncio.to_thread(relay.process.wait, 60)
        if code:
            outcome.wrong.append(f"the relay was told to end and ended with {code}")
    else:
        outcome.wrong += [f"still held: {what}" for what in await relay.at_rest()]
        grown = relay.read_rss() - relay.rss_bytes
        if grown > MEMORY_BYTES:
            outcome.wrong.append(f"memory has grown by {grown / 1e6:.0f} MB")
    outcome.wrong += [f"in the log: {line}" for line in relay.complaints()]
    return outcome


class Lag:
    """How late this process's loop has been: a client that cannot run is as slow as one that does not want to."""

    def __init__(self) -> None:
        self.most = 0.0

    def late(self) -> bool:
        return self.most > LATE_SECONDS

    async def measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.1
            await asyncio.sleep(0.1)
            self.most = max(self.most, loop.time() - due)


async def _run_client(relay: Relay, kind: str, outcome: Outcome, mix: Mix) -> None:
    script = mix.script
    await asyncio.sleep(mix.chance.random() * 0.3)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS * 2):
            seen = await CLIENTS[kind](mix)
    except Wrong as wrong:
        seen = f"WRONG: {wrong}"
    except TimeoutError:
        seen = f"WRONG: it was still waiting after {PATIENCE_SECONDS * 2:g} s"
    except OSError as error:
        seen = f"{type(error).__name__}"
        # ENOTCONN: a half-close of what was reset.
        reset = isinstance(error, ConnectionResetError | BrokenPipeError) or error.errno == errno.ENOTCONN
        if not mix.excused and not reset:
            seen = f"WRONG: {error!r}"
    if seen.startswith("WRONG"):
        outcome.wrong.append(f"client {kind}, upstream {script}: {seen}")
    outcome.seen.append((kind, script.fault if script.streams else f"{script.fault} (whole answer)", seen))


async def _meanwhile(relay: Relay, event: str, after: float) -> None:
    await asyncio.sleep(after)
    surroundings = relay.surroundings
    if event == "redis_killed" and surroundings.redis is not None:
        await asyncio.to_thread(surroundings.kill_redis)
        await asyncio.sleep(0.5)
        surroundings.start_redis()
    elif event == "terminated":
        relay.process.send_signal(signal.SIGTERM)
