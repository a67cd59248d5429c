"""What happens to a relay and its machine while clients are there: one coroutine for each, in a table.

Each takes something away, waits, and gives it back. It returns what it did in one word, "left out" and why where this machine
cannot do it, and raises Wrong where the relay or its monitor answer what they may not.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.message import Message
from typing import Any

from .clients import Wrong
from .machine import descriptors_at_most
from .relay import Relay

__all__ = ["EVENTS", "Event"]

CAPTURE_KINDS = ("memray", "tracemalloc", "objects", "tasks", "retained")
# On a busy machine: a capture of two seconds, with all that its reader does.
CAPTURE_SECONDS = 300.0
# What a monitor may say instead: busy, would be an outage, its agent is silent (it has no processor), no room.
REFUSALS = (409, 503, 504, 507)


@dataclass(frozen=True)
class Event:
    """run      what happens; it is given the relay, and a source of chance
    troubles    a client's answer may be cut meanwhile, or not come; its bytes may not be wrong
    ends        the relay has ended afterwards, and how: "by itself" or "killed"
    workers     it is for a relay of several workers
    """

    run: Callable[[Relay, random.Random], Awaitable[str]]
    troubles: bool = False
    ends: str = ""
    workers: bool = False


async def redis_killed(relay: Relay, chance: random.Random) -> str:
    around = relay.surroundings
    if around.redis is None:
        return "left out: there is no redis-server here"
    await asyncio.to_thread(around.kill_redis)
    await asyncio.sleep(0.5)
    around.start_redis()
    return "done"


async def upstream_killed(relay: Relay, chance: random.Random) -> str:
    await asyncio.to_thread(relay.surroundings.kill_upstream)
    await asyncio.sleep(chance.random())
    await asyncio.to_thread(relay.surroundings.start_upstream)
    return "done"


async def otlp_killed(relay: Relay, chance: random.Random) -> str:
    await asyncio.to_thread(relay.surroundings.kill_otlp)
    await asyncio.sleep(chance.random() * 3)
    await asyncio.to_thread(relay.surroundings.start_otlp)
    return "done"


async def otlp_silent(relay: Relay, chance: random.Random) -> str:
    """It takes connections, and says nothing."""
    pid = relay.surroundings.otlp_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(chance.random() * 3)
    finally:
        os.kill(pid, signal.SIGCONT)
    return "done"


async def disk_full(relay: Relay, chance: random.Random) -> str:
    """No room for captures, the black box, the audit log, nor for the relay's own log."""
    if relay.disk is None:
        return "left out: this user can mount nothing"
    await asyncio.to_thread(relay.disk.fill)
    try:
        await asyncio.sleep(chance.random() * 2)
    finally:
        relay.disk.empty()
    return "done"


async def no_descriptors(relay: Relay, chance: random.Random) -> str:
    """EMFILE for whoever serves."""
    pid = chance.choice(relay.serving())
    with descriptors_at_most(pid, chance.randrange(4)):
        await asyncio.sleep(chance.random() * 2)
    return "done"


async def no_processes(relay: Relay, chance: random.Random) -> str:
    """Neither fork nor a new thread, in the relay and its monitor."""
    if relay.processes is None:
        return "left out: this user can make no cgroup that counts processes"
    relay.processes.no_more()
    try:
        await asyncio.sleep(chance.random() * 2)
    finally:
        relay.processes.as_many_as_wanted()
    return "done"


async def worker_killed(relay: Relay, chance: random.Random) -> str:
    os.kill(chance.choice(relay.serving()), signal.SIGKILL)
    return "done"


async def monitor_killed(relay: Relay, chance: random.Random) -> str:
    """The relay goes on without; another one for the same folder finds it."""
    os.kill(relay.monitor_pid(), signal.SIGKILL)
    await asyncio.sleep(chance.random())
    await asyncio.to_thread(relay.start_another_monitor)
    return "done"


async def captured(relay: Relay, chance: random.Random) -> str:
    """Two captures, of kinds that chance names."""
    said = []
    for _ in range(2):
        await asyncio.sleep(chance.random())
        kind = chance.choice(CAPTURE_KINDS)
        body = {"kind": kind, **({"seconds": 1} if kind in ("memray", "tracemalloc") else {})}
        relay.memray_was_on = relay.memray_was_on or kind == "memray"
        said.append(f"{kind} {await asyncio.to_thread(_capture, relay, body)}")
    return ", ".join(said)


async def terminated(relay: Relay, chance: random.Random) -> str:
    relay.process.send_signal(signal.SIGTERM)
    return "done"


async def killed(relay: Relay, chance: random.Random) -> str:
    relay.process.kill()
    return "done"


def _capture(relay: Relay, body: dict[str, Any]) -> str:
    """What became of a capture, in a word. Raises Wrong, and OSError where no monitor answers."""
    try:
        headers, _ = _asked(f"{relay.monitor}/debug/memory/captures", json.dumps(body).encode())
    except urllib.error.HTTPError as error:
        with error:
            told = error.read()
        if error.code not in REFUSALS:
            raise Wrong(f"a capture was answered with {error.code}: {told[:300]!r}") from None
        return f"refused ({json.loads(told)['error']['code']})"
    until = time.monotonic() + CAPTURE_SECONDS
    while time.monotonic() < until:
        _, told = _asked(relay.monitor + headers["location"])
        capture = json.loads(told)
        if capture["state"] in ("done", "cancelled"):
            return str(capture["state"])
        if capture["state"] == "failed":
            return f"failed ({capture['error']['code']})"
        time.sleep(0.2)
    raise Wrong(f"a capture is {capture['state']} after {CAPTURE_SECONDS:g} s")


def _asked(url: str, body: bytes | None = None) -> tuple[Message, bytes]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers, answer.read()


EVENTS: dict[str, Event] = {
    "redis_killed": Event(redis_killed),
    "upstream_killed": Event(upstream_killed, troubles=True),
    "otlp_killed": Event(otlp_killed),
    "otlp_silent": Event(otlp_silent),
    "disk_full": Event(disk_full),
    "no_descriptors": Event(no_descriptors, troubles=True),
    "no_processes": Event(no_processes),
    "monitor_killed": Event(monitor_killed),
    "captured": Event(captured),
    "worker_killed": Event(worker_killed, troubles=True, workers=True),
    "terminated": Event(terminated, troubles=True, ends="by itself"),
    "killed": Event(killed, troubles=True, ends="killed"),
}
