"""What the sampled heap costs services under load: CPU of the relay and of a uvicorn service, by what is hooked.

    python tests/bench/bench_heap_services.py [--services relay,uvicorn] [--processes 4] [--rounds 10] [--seconds 600]

The kinds are `bare`, without hooks; `empty`, which samples at a rate that is never reached; and `on`. Of each one process
serves, on a core of its own, and short rounds of the same work alternate between them, so that what else the machine does falls
on all alike; then other processes follow, since where a process has its memory alone makes a per cent. A round of the relay is
whole streams of 20 events, 8 at a time, step by step; one of uvicorn, answers that stream 30 events of JSON to 8 clients.
Shown is the CPU of all rounds of one kind by that of another, and the least and the most of single processes; not medians of
rounds, since a round of the relay has a collection of garbage or a batch of telemetry in it, or has none. Exit code 1 where
`on` costs more than 1.02 of `bare`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from sidebyside.lockstep import Upstream
from sidebyside.peers import relay_command
from sidebyside.processes import RELAY_CORE, ROOT, TRAFFIC_CORE, Started, cpu_seconds, free_port, started, wait_for_port

KINDS = {
    "bare": {},
    "empty": {"DIAGNOSTICS_HEAP": "on", "DIAGNOSTICS_HEAP_RATE": str(1 << 40)},
    "on": {"DIAGNOSTICS_HEAP": "on"},
}
TARGET = 1.02
WARM_UP_ROUNDS = 2
EVENTS = 20
AT_ONCE = 8

UVICORN = """
import json, os, sys
import uvicorn
from diagnostics.agent import heap

if "DIAGNOSTICS_HEAP" in os.environ:
    why = heap.begin() or heap.keep(os.environ["DIAGNOSTICS_DIR"])
    assert why is None, why

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for number in range(30):
        event = json.dumps({"id": number, "choices": [{"index": 0, "delta": {"content": "word " * 4}}]})
        await send({"type": "http.response.body", "body": f"data: {event}\\n\\n".encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b""})

uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, lifespan="off")
"""

# Does one round's work, on the service at a port.
Work = Callable[[int], Awaitable[None]]
# The work, and the command and environment of a service on a port with its files in a folder.
Service = tuple[Work, Callable[[int, Path], tuple[list[str], dict[str, str]]]]


@contextlib.asynccontextmanager
async def relay() -> AsyncIterator[Service]:
    async with Upstream().serving() as upstream:
        base = f"http://127.0.0.1:{upstream.port}"

        async def work(port: int) -> None:
            for _ in range(25):
                streams = [await upstream.open(port) for _ in range(AT_ONCE)]
                for _ in range(EVENTS):
                    await asyncio.gather(*(stream.step(1) for stream in streams))
                await asyncio.gather(*(stream.finish() for stream in streams))

        def command(port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
            words, env = relay_command(ROOT, f"{base}/v1", f"{base}/otlp", folder, port=port)
            return [*words, "--no-diagnostics"], env  # the agent is there without its monitor

        yield work, command


@contextlib.asynccontextmanager
async def uvicorn() -> AsyncIterator[Service]:
    async def ask(port: int) -> None:
        for _ in range(50):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                while await reader.read(65536):
                    pass

    async def work(port: int) -> None:
        await asyncio.gather(*(ask(port) for _ in range(AT_ONCE)))

    def command(port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-c", UVICORN, str(port)], {
            "PYTHONPATH": str(ROOT),
            "DIAGNOSTICS_DIR": str(folder / "diagnostics"),
        }

    yield work, command


SERVICES = {"relay": relay, "uvicorn": uvicorn}


async def measured(service: Service, rounds: int, until: float) -> list[dict[str, float]]:
    """Seconds of CPU of each kind, by round, of one process of each kind; no round begins after `until` (monotonic)."""
    work, command = service
    with tempfile.TemporaryDirectory(prefix="highwater-heap-") as name, contextlib.ExitStack() as opened:
        serving: dict[str, tuple[Started, int]] = {}
        for kind, settings in KINDS.items():
            folder, port = Path(name, kind), free_port()
            folder.mkdir()
            words, env = command(port, folder)
            process = opened.enter_context(started(words, RELAY_CORE, {**env, **settings}, cwd=folder))
            wait_for_port(port, process)
            serving[kind] = process, port
        spent = []
        for number in range(rounds + WARM_UP_ROUNDS):
            if time.monotonic() > until and len(spent) > WARM_UP_ROUNDS + 1:
                break
            turn = {}
            for kind in serving if number % 2 else reversed(serving):
                process, port = serving[kind]
                began = cpu_seconds(process.pid)
                await work(port)
                turn[kind] = cpu_seconds(process.pid) - began
            spent.append(turn)
        for kind in KINDS:
            tables = list(Path(name, kind).glob("diagnostics/heap/*.heap"))
            if bool(tables) != (kind != "bare"):
                raise SystemExit(f"of {kind} there are {len(tables)} tables of a live heap")
    return spent[WARM_UP_ROUNDS:]


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", default=",".join(SERVICES))
    parser.add_argument(
        "--processes", type=int, default=4, help="of each kind, one after the other (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=10, help="of each process (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=600.0, help="of a service; what is not done then is left out")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {TRAFFIC_CORE})
    print(f"{arguments.processes} processes of each kind, {arguments.rounds} rounds each; load {_load()}\n")
    print("| service | CPU of a round, bare, ms | empty / bare | on / bare | on / empty |\n|---|---|---|---|---|")
    missed = False
    for name in arguments.services.split(","):
        async with SERVICES[name]() as service:
            found, until = [], time.monotonic() + arguments.seconds
            while len(found) < arguments.processes and (not found or time.monotonic() < until):
                found.append(await measured(service, arguments.rounds, until))
        bare = statistics.median(turn["bare"] for turns in found for turn in turns) * 1000
        shown = [_shown(found, *pair) for pair in (("empty", "bare"), ("on", "bare"), ("on", "empty"))]
        print(
            f"| {name}, {sum(map(len, found))} rounds of {len(found)} | {bare:.0f} | {' | '.join(shown)} |", flush=True
        )
        missed |= _ratio([turn for turns in found for turn in turns], "on", "bare") > TARGET
    print(f"\nload {_load()} at the end")
    return int(missed)


def _shown(found: list[list[dict[str, float]]], of: str, to: str) -> str:
    single = [_ratio(turns, of, to) for turns in found]
    return f"{_ratio([turn for turns in found for turn in turns], of, to):.3f} ({min(single):.3f} to {max(single):.3f})"


def _ratio(turns: list[dict[str, float]], of: str, to: str) -> float:
    return sum(turn[of] for turn in turns) / sum(turn[to] for turn in turns)


def _load() -> str:
    return ", ".join(f"{each:.0f}" for each in os.getloadavg())


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
