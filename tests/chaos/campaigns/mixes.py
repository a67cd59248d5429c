"""Which clients a mix has, and which of the upstream's answers each of them meets: all of it follows from the mix's number."""

from __future__ import annotations

import random

from ..clients import CLIENTS
from ..events import EVENTS
from ..faults import FAULTS, Script
from ..relay import VARIANTS, WORKERS
from ..seeds import ANSWER_FAULTS, READERS, Plan

__all__ = ["EACH", "MIXES", "TROUBLES", "mix_of", "trouble_of", "variant_of"]

# Clients of each kind of answer, and of each kind that asks for none, in one mix.
EACH = 4
# Mixes of one campaign.
MIXES = 50
# What happens to the machine, beside small mixes of their own.
TROUBLES = tuple(EVENTS)
TROUBLED_CLIENTS = 8
TROUBLED_KINDS = ("fast", "fast", "slow", "event_source", "pipelining", "topic")
# Answers that take no deadline of the relay's to be over.
TROUBLED_FAULTS = (
    "none",
    "none",
    "slow",
    "slow",
    "late",
    "crlf",
    "tiny_chunks",
    "until_close",
    "cut",
    "reset",
    "refusal",
)


def mix_of(number: int) -> Plan:
    """All kinds of answers and all kinds of clients, each EACH times or more, in an order and with sizes of its own."""
    chance = random.Random(f"mix {number}")
    asked = [(fault, True) for fault in FAULTS] + [(fault, False) for fault in ANSWER_FAULTS]
    readers: list[str] = []
    clients = []
    for index, (fault, streams) in enumerate(asked * EACH):
        if not readers:
            readers = chance.sample(READERS, len(READERS))
        kind = readers.pop()
        if kind == "event_source" and not streams:
            kind = "fast"
        count = chance.choice((1, 5, 50, 50, 400)) if streams else chance.choice((1, 10, 100, 2000))
        clients.append((kind, Script(fault, number * 1000 + index, count, streams)))
    others = [kind for kind in CLIENTS if kind not in READERS] * EACH
    clients += [(kind, Script("none", number * 1000 + at, 5, True)) for at, kind in enumerate(others, len(clients))]
    chance.shuffle(clients)
    return Plan(tuple(clients), variant=variant_of(number))


def variant_of(number: int) -> str:
    """How the relay of its campaign is set up: every second one as it is, the others in turn as all that it can be."""
    campaign = number // MIXES
    others = VARIANTS[1:]
    return others[campaign // 2 % len(others)] if campaign % 2 else ""


def trouble_of(event: str, number: int) -> Plan:
    """A few clients, and one thing that happens to the machine meanwhile."""
    chance = random.Random(f"{event} {number}")
    seed = (TROUBLES.index(event) + 1) * 10_000_000 + number * 10
    clients = tuple(
        (chance.choice(TROUBLED_KINDS), Script(chance.choice(TROUBLED_FAULTS), seed + at, chance.choice((5, 50)), True))
        for at in range(TROUBLED_CLIENTS)
    )
    return Plan(clients, (event,), WORKERS if EVENTS[event].workers else "")
