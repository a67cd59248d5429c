"""Instructions per event and per stream, counted by callgrind: the same to half a per cent on any machine, however busy.

What is counted is the whole process outside the kernel, between two looks, less what it does in that time while nothing comes
(sweeps, a look at its loop's lag): how long the events take is the machine's affair. System calls (of a relay's time per paced
event about half) are not in it, so a ratio of instructions is further from one than a ratio of CPU time.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from .lockstep import PATIENCE_SECONDS, Stream, Upstream
from .peers import python_command, relay_command
from .processes import RELAY_CORE, TRAFFIC_CORE, Started, free_port, started, wait_for_port

STREAMS = 4
# name: events in one write, writes per stream that are counted
SHAPES = {"one by one": (1, 100), "in bursts": (60, 10)}
WARM_UP_STEPS = 30
IDLE_SECONDS = 3.0
# A stream of one event: connected, asked for, passed on, ended. Its connection to the upstream is one that was kept.
WHOLE = "a stream"
WHOLE_STREAMS = 10
# Spans and log lines are made, and counted, on the loop; what packs them up once in a while is not.
SETTLE_SECONDS = 0.5  # after which the last one's end is over too
NO_EXPORT = dict.fromkeys(
    ("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY", "OTEL_METRIC_EXPORT_INTERVAL"), "600000"
)  # milliseconds
LOG = "log"

T = TypeVar("T")


async def count_all(
    checkouts: Mapping[str, Path], settings: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, dict[str, float]]:
    """Instructions per event of `bare` and of the relays of some checkouts, for each shape of traffic, and per whole stream.

    `settings`: environment of some of the relays, by their name.
    """

    async def count(peer: str, checkout: Path, core: int) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="callgrind-") as folder:
            environment = (settings or {}).get(peer, {})
            async with under_valgrind(peer, checkout, core, environment, Path(folder)) as (process, upstream, port):
                return await _counted(process, upstream, port)

    return await on_both_cores(count, checkouts)


async def on_both_cores(count: Callable[[str, Path, int], Awaitable[T]], checkouts: Mapping[str, Path]) -> dict[str, T]:
    """Count each peer of a checkout, one at a time on each core. What runs beside it changes nothing of what is counted."""
    cores = [RELAY_CORE, TRAFFIC_CORE]
    places = asyncio.Semaphore(len(cores))

    async def one(peer: str, checkout: Path) -> T:
        async with places:
            core = cores.pop()
            try:
                return await count(peer, checkout, core)
            finally:
                cores.append(core)

    counts = await asyncio.gather(*(one(peer, checkout) for peer, checkout in checkouts.items()))
    return dict(zip(checkouts, counts, strict=True))


@contextlib.asynccontextmanager
async def under_valgrind(
    peer: str,
    checkout: Path,
    core: int,
    settings: Mapping[str, str],
    folder: Path,
    run: Callable[[list[str]], list[str]] = lambda command: command,
) -> AsyncIterator[tuple[Started, Upstream, int]]:
    """A peer that serves under callgrind, its upstream, and its port; valgrind's log is LOG in `folder`.

    run      makes of the peer's command the one that is run
    """
    async with Upstream().serving() as upstream:
        port = free_port()
        base = f"http://127.0.0.1:{upstream.port}"
        if peer == "bare":
            command, env = python_command("bare", port, f"{base}/v1")
        else:
            command, env = relay_command(checkout, f"{base}/v1", f"{base}/otlp", folder, port=port)
            command.append("--no-diagnostics")  # the monitor asks on its own time; the agent is there without it
        valgrind = [
            "valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out",
            f"--log-file={folder / LOG}",
        ]  # fmt: skip
        env |= {"PYTHONHASHSEED": "0", **NO_EXPORT, **settings}
        with started([*valgrind, *run(command)], core, env, cwd=folder) as process:
            try:
                await asyncio.to_thread(wait_for_port, port, process, PATIENCE_SECONDS)
                yield process, upstream, port
            except TimeoutError:
                raise process.failure("no event came through") from None


async def _counted(process: Started, upstream: Upstream, port: int) -> dict[str, float]:
    streams = await warm(upstream, port)
    await control(process, "--instr=on")
    idle_a_second = await _between(process, asyncio.sleep(IDLE_SECONDS), 0.0) / IDLE_SECONDS
    found = {}
    for name, (events, steps) in SHAPES.items():
        await _steps(streams, events, 3)
        counted = await _between(process, _steps(streams, events, steps), idle_a_second)
        found[name] = counted / (STREAMS * events * steps)
    await _whole(upstream, port, 3)
    found[WHOLE] = await _between(process, _whole(upstream, port, WHOLE_STREAMS), idle_a_second) / WHOLE_STREAMS
    await control(process, "--instr=off")
    for stream in streams:
        stream.client_writer.close()
    return found


async def warm(upstream: Upstream, port: int) -> list[Stream]:
    """Streams that stay open, when all that their opening and their events load is loaded."""
    streams = [await upstream.open(port) for _ in range(STREAMS)]
    await _steps(streams, 1, WARM_UP_STEPS)
    return streams


async def _between(process: Started, work: Awaitable[None], idle_a_second: float) -> float:
    """Instructions that the work takes, less those that would have been there without it."""
    await control(process, "--zero")
    began = time.monotonic()
    await work
    seconds = time.monotonic() - began
    return _total(await control(process, "-e")) - idle_a_second * seconds


async def _steps(streams: list[Stream], events: int, steps: int) -> None:
    for _ in range(steps):
        for stream in streams:
            await stream.step(events)


async def _whole(upstream: Upstream, port: int, streams: int) -> None:
    for _ in range(streams):
        stream = await upstream.open(port)
        await stream.step(1)
        await stream.finish()
    await asyncio.sleep(SETTLE_SECONDS)


async def control(process: Started, *options: str) -> str:
    """Speak to the process's callgrind, while the loop goes on."""
    told = await asyncio.to_thread(
        subprocess.run,
        ["callgrind_control", *options, str(process.pid)],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return str(told.stdout)


def _total(told: str) -> int:
    counted = re.findall(r"Th \d+ +([\d,]+)", told)
    if not counted:
        raise SystemExit(f"callgrind told nothing that is understood: {told!r}")
    return sum(int(number.replace(",", "")) for number in counted)
