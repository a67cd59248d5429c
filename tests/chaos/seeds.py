"""One seed: which clients meet which faults, and what must be true when they are gone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException

from .clients import CLIENTS, PATIENCE_SECONDS, Mix, Wrong
from .events import EVENTS
from .faults import FAULTS, HARMLESS, Script
from .relay import LIMITS, PATIENCE, VARIANTS, WORKERS, Relay

__all__ = ["ANSWER_FAULTS", "MEMORY_BYTES", "READERS", "Outcome", "Plan", "plan_of", "run_seed"]

# What the relay's memory may have grown by since it came to rest, whatever it went through: allocators keep pages.
MEMORY_BYTES = 64 * 1024 * 1024
# The relay waits three seconds for a request's head: a client that was stopped for longer than this may have been too late.
LATE_SECONDS = 1.0 * PATIENCE
# Clients, and upstreams, that do nothing but wait until the relay ends what they hold.
IDLE = frozenset(
    ("never_reading", "slowloris_head", "slowloris_body", "body_after_a_refusal", "endless_trailers", "silent")
)
IDLE_FAULTS = frozenset(("silent", "stalled", "endless_comments"))
EVERYBODY = 1 << 20
SEEDS_A_VARIANT = 5
# What a relay's children may take to notice that it is gone.
LEFT_SECONDS = 30.0
# Events that end who would answer another one, and those that may make a capture fail.
DEAF = {"terminated", "killed", "monitor_killed"}
SPOILING = {"disk_full", "no_descriptors", "no_processes", "worker_killed"}
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
    events    what happens meanwhile, names of EVENTS
    variant   how the relay is set up, one of VARIANTS
    """

    clients: tuple[tuple[str, Script], ...]
    events: tuple[str, ...] = ()
    variant: str = ""


@dataclass
class Outcome:
    """What came of it.

    seen    client, fault and what became of it
    events  each of what happened meanwhile, and what it says of itself
    wrong   what must not be, in words
    late    whether the clients' process was stopped for longer than a client may be: their answers may then have been cut
    exact   bytes of streams that came whole, each as the upstream sent it
    excused  which of `seen` are of clients that had no processor for longer than a client may be
    """

    seed: int
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    variant: str = ""
    late: bool = False
    exact: int = 0
    excused: list[int] = field(default_factory=list)


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
    variant = _variant_of(seed)
    possible = tuple(name for name, event in EVENTS.items() if variant == WORKERS or not event.workers)
    events = chance.sample(possible, chance.choices((0, 1, 2), (45, 40, 15))[0])
    if variant == WORKERS and chance.random() < 0.5:  # what this variant is for
        events = ["worker_killed", *(name for name in events if name != "worker_killed")]
    ends = [name for name in events if EVENTS[name].ends]
    return Plan(tuple(clients), tuple(name for name in events if name not in ends[1:]), variant)


def _variant_of(seed: int) -> str:
    """Several seeds in a row have the same, since a relay lives for many of them."""
    chance = random.Random(f"variant {seed // SEEDS_A_VARIANT}")
    return chance.choice(VARIANTS) if chance.random() < 0.6 else ""


async def run_seed(
    relay: Relay, seed: int, plan: Plan | None = None, at_once: int = EVERYBODY, spread: float = 0.3
) -> Outcome:
    """Let the seed's mix loose on a relay, and look at what is left.

    at_once  how many clients may be busy; those that only wait for the relay's deadlines (IDLE) are not counted
    spread   seconds within which clients come
    """
    plan = plan or plan_of(seed)
    outcome = Outcome(seed, variant=plan.variant)
    lag = Lag()
    lagging = asyncio.create_task(lag.measure())
    late = lag.since(asyncio.get_running_loop().time())
    chance = random.Random(-seed - 1)
    meanwhile = [
        asyncio.create_task(_meanwhile(relay, name, plan, outcome, random.Random(chance.random())))
        for name in plan.events
    ]
    troubled = any(EVENTS[name].troubles for name in plan.events)
    busy = asyncio.Semaphore(at_once)

    async def run_client(kind: str, script: Script) -> None:
        await asyncio.sleep(chance.random() * spread)
        async with contextlib.nullcontext() if kind in IDLE or script.fault in IDLE_FAULTS else busy:
            late = lag.since(asyncio.get_running_loop().time(), lasts_seconds() if kind == "slow" else math.inf)
            mix = Mix(relay.address, script, random.Random(script.seed), troubled, late)
            await _run_client(kind, outcome, mix)

    await asyncio.gather(*(run_client(kind, script) for kind, script in plan.clients))
    await asyncio.gather(*meanwhile)
    lagging.cancel()
    outcome.late = late()
    ends = next((EVENTS[name].ends for name in plan.events if EVENTS[name].ends), "")
    if ends:
        outcome.wrong += await asyncio.to_thread(_what_is_left, relay, by_itself=ends == "by itself")
    else:
        outcome.wrong += [f"still held: {what}" for what in await relay.at_rest()]
        grown = relay.read_rss() - relay.rss_bytes
        if grown > MEMORY_BYTES:
            outcome.wrong.append(f"memory has grown by {grown / 1e6:.0f} MB")
    if ends == "killed":
        outcome.wrong += await _starts_again(relay)
    outcome.wrong += [f"in the log: {line}" for line in relay.complaints()]
    return outcome


def _what_is_left(relay: Relay, *, by_itself: bool) -> list[str]:
    """What is wrong with how a relay has ended, in words; nothing of it may run any more."""
    code = relay.process.wait(60)
    relay.end_another_monitor()  # which is no child of the relay's
    found = [f"the relay was told to end and ended with {code}"] if by_itself and code else []
    until = time.monotonic() + LEFT_SECONDS
    while (alive := relay.alive()) and time.monotonic() < until:
        time.sleep(0.2)
    return found + [f"still runs after its relay has ended: {process}" for process in alive]


async def _starts_again(killed: Relay) -> list[str]:
    """What is wrong with a relay that begins where another one was killed, in words."""
    relay = await asyncio.to_thread(Relay.start, killed.surroundings, killed.variant, after=killed)
    try:
        await relay.settle()
        script = Script("none", 1, 20, True)
        outcome = Outcome(-1)
        await _run_client("fast", outcome, Mix(relay.address, script, random.Random(1)))
        return [f"after it was killed and began again: {what}" for what in outcome.wrong + await relay.at_rest()]
    finally:
        await asyncio.to_thread(relay.stop)


def lasts_seconds() -> float:
    """How long a stream may last: who reads slowly on a busy machine may need longer, and is cut off."""
    return float(LIMITS["STREAM_TIMEOUT_SECONDS"]) * PATIENCE


class Lag:
    """How late this process's loop has been: a client that cannot run is as slow as one that does not want to."""

    def __init__(self) -> None:
        self._late_until = -1e9
        self._due = float("inf")

    def since(self, began: float, most_seconds: float = math.inf) -> Callable[[], bool]:
        """Whether it was later than a client may be at any time from `began` on, or that was too long ago."""
        loop = asyncio.get_running_loop()
        # Who asks may be the first to run after a stop.
        return lambda: (
            self._late_until >= began or loop.time() - self._due > LATE_SECONDS or loop.time() - began >= most_seconds
        )

    async def measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._due = loop.time() + 0.1
            await asyncio.sleep(0.1)
            if loop.time() - self._due > LATE_SECONDS:
                self._late_until = loop.time()


async def _run_client(kind: str, outcome: Outcome, mix: Mix) -> None:
    script = mix.script
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
    outcome.exact += mix.exact
    if seen.startswith("WRONG"):
        outcome.wrong.append(f"client {kind}, upstream {script}: {seen}")
    outcome.seen.append((kind, script.fault if script.streams else f"{script.fault} (whole answer)", seen))
    if mix.late():
        outcome.excused.append(len(outcome.seen) - 1)


async def _meanwhile(relay: Relay, name: str, plan: Plan, outcome: Outcome, chance: random.Random) -> None:
    await asyncio.sleep(chance.random() * 1.5)
    try:
        said = await EVENTS[name].run(relay, chance)
    except Wrong as wrong:
        said = f"wrong: {wrong}"
        if not DEAF & set(plan.events):
            outcome.wrong.append(f"{name}: {wrong}")
    except (OSError, HTTPException) as error:
        said = type(error).__name__
        if not DEAF & set(plan.events):
            outcome.wrong.append(f"{name}: {error!r}")
    if "failed" in said and not (DEAF | SPOILING) & set(plan.events):
        outcome.wrong.append(f"{name}: {said}, although nothing was in its way")
    outcome.events.append((name, said))
