"""Instructions per event and per stream, counted by callgrind: the same to half a per cent on any machine, however busy.

What is counted is the whole process outside the kernel, between two looks, less what it does in that time while nothing comes
(sweeps, a look at its loop's lag): how long the events take is the machine's affair. System calls (of a relay's time per paced
event about half) are not in it, so a ratio of instructions is further from one than a ratio of CPU time.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Mapping
from pathlib import Path

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
NO_EXPORT = {"OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_BLRP_SCHEDULE_DELAY": "600000"}


async def count_all(
    checkouts: Mapping[str, Path], settings: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, dict[str, float]]:
    """Instructions per event of `bare` and of the relays of some checkouts, for each shape of traffic, and per whole stream.

    What runs beside it changes nothing of what is counted. `settings`: environment of some of the relays, by their name.
    """
    cores = [RELAY_CORE, TRAFFIC_CORE]

    async def one(peer: str, checkout: Path) -> dict[str, float]:
        async with places:
            core = cores.pop()
            try:
                return await _count(peer, checkout, core, (settings or {}).get(peer, {}))
            finally:
                cores.append(core)

    places = asyncio.Semaphore(len(cores))
    counts = await asyncio.gather(*(one(peer, checkout) for peer, checkout in checkouts.items()))
    return dict(zip(checkouts, counts, strict=True))


async def _count(peer: str, checkout: Path, core: int, settings: Mapping[str, str]) -> dict[str, float]:
    async with Upstream().serving() as upstream:
        port = free_port()
        base = f"http://127.0.0.1:{upstream.port}"
        with tempfile.TemporaryDirectory(prefix="callgrind-") as folder:
            if peer == "bare":
                command, env = python_command("bare", port, f"{base}/v1")
            else:
                command, env = relay_command(checkout, f"{base}/v1", f"{base}/otlp", Path(folder), port=port)
                command.append("--no-diagnostics")  # the monitor asks on its own time; the agent is there without it
            valgrind = [
                "valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out",
                f"--log-file={folder}/log",
            ]  # fmt: skip
            env |= {"PYTHONHASHSEED": "0", **NO_EXPORT, **settings}
            with started([*valgrind, *command], core, env, cwd=Path(folder)) as process:
                try:
                    await asyncio.to_thread(wait_for_port, port, process, PATIENCE_SECONDS)
                    return await _counted(process, upstream, port)
                except TimeoutError:
                    raise process.failure("no event came through") from None


async def _counted(process: Started, upstream: Upstream, port: int) -> dict[str, float]:
    streams = [await upstream.open(port) for _ in range(STREAMS)]
    await _steps(streams, 1, WARM_UP_STEPS)
    await _control(process, "--instr=on")
    idle_a_second = await _between(process, asyncio.sleep(IDLE_SECONDS), 0.0) / IDLE_SECONDS
    found = {}
    for name, (events, steps) in SHAPES.items():
        await _steps(streams, events, 3)
        counted = await _between(process, _steps(streams, events, steps), idle_a_second)
        found[name] = counted / (STREAMS * events * steps)
    await _whole(upstream, port, 3)
    found[WHOLE] = await _between(process, _whole(upstream, port, WHOLE_STREAMS), idle_a_second) / WHOLE_STREAMS
    await _control(process, "--instr=off")
    for stream in streams:
        stream.client_writer.close()
    return found


async def _between(process: Started, work: Awaitable[None], idle_a_second: float) -> float:
    """Instructions that the work takes, less those that would have been there without it."""
    await _control(process, "--zero")
    began = time.monotonic()
    await work
    seconds = time.monotonic() - began
    return _total(await _control(process, "-e")) - idle_a_second * seconds


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


async def _control(process: Started, *options: str) -> str:
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
