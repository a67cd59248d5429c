"""What the monitor takes beside open streams: of a core for itself, and of the service's GIL for its looks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from diagnostics.monitor.workers.conversation import ask
from diagnostics.protocol import agent_socket

from .holding import IDLE_PACE, held
from .measure import scraped
from .peers import Serving
from .processes import PeerFailedError, ended_seconds, running_beside_seconds
from .traffic import Traffic

# All streams together, where they are busy; of fewer than 250 streams each has twenty a second.
EVENTS_PER_SECOND, MOST_PACE = 5000.0, 20.0
# Several looks of each kind: a scrape comes every five seconds, a look at the live heap likewise.
SECONDS = 15.0
# The recorder's each second; those of the page, the rules and a scrape; the service's own metrics. Captures are no looks.
LOOKS = ("sample", "reading", "registered")
ANSWER_PATIENCE_SECONDS = 10.0


def beside(serving: Serving, traffic: Traffic, streams: int) -> dict[str, float]:
    """The monitor beside so many open streams.

    idle_cores, busy_cores   its CPU as a share of one core: beside streams that are as good as silent, and nobody asks the
                             monitor for anything; beside as many that carry events, while it is scraped every five seconds
    captures_seconds         CPU of the service's forks in both times, in which captures are made that the verdict asked for
    idle_held_ms, busy_held_ms   the longest that one of LOOKS kept the service's GIL at a time, in CPU
    answers                  how many answers that is of
    answer_ms                CPU of one in the mean, in the service
    """
    forks = ended_seconds(serving.pid)
    idle_cores, _, idle_longest, _ = _watched(serving, traffic, streams, pace=IDLE_PACE, asked=False)
    pace = min(MOST_PACE, EVENTS_PER_SECOND / streams) if streams else 0.0
    busy_cores, answers, busy_longest, cpu = _watched(serving, traffic, streams, pace=pace, asked=True)
    return {
        "idle_cores": idle_cores,
        "busy_cores": busy_cores,
        "captures_seconds": ended_seconds(serving.pid) - forks,
        "idle_held_ms": 1e3 * idle_longest,
        "busy_held_ms": 1e3 * busy_longest,
        "answers": answers,
        "answer_ms": 1e3 * cpu / max(1.0, answers),
    }


def _watched(
    serving: Serving, traffic: Traffic, streams: int, *, pace: float, asked: bool
) -> tuple[float, float, float, float]:
    """Share of a core; answers of the agent, the longest stretch, and the CPU of all, in seconds."""
    clients = held(serving, traffic, streams, pace=pace) if streams else contextlib.nullcontext()
    with clients, scraped(serving.monitor if asked else None):
        asyncio.run(_held(serving))  # what was before is none of it
        began, cpu = time.monotonic(), running_beside_seconds(serving.pid)
        time.sleep(SECONDS)
        cores = (running_beside_seconds(serving.pid) - cpu) / (time.monotonic() - began)
        answered = asyncio.run(_held(serving))
    kinds = [each for operation, each in answered.items() if operation in LOOKS]
    return (
        cores,
        sum(each["answers"] for each in kinds),
        max((each["longest_seconds"] for each in kinds), default=0.0),
        sum(each["cpu_seconds"] for each in kinds),
    )


async def _held(serving: Serving) -> dict[str, dict[str, float]]:
    """How long the agent's answers kept the GIL since this was last asked, by operation."""
    if serving.diagnostics is None:
        raise PeerFailedError(f"{serving.url} has no monitor")
    socket = Path(agent_socket(serving.diagnostics, serving.pid))
    found: dict[str, dict[str, float]] = await ask(socket, "held", patience=ANSWER_PATIENCE_SECONDS)
    return found
