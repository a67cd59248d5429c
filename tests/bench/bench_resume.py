"""What an event costs a relay that keeps its streams, as a ratio of CPU time to one that does not, for each place to keep them.

    python tests/bench/bench_resume.py [--streams N] [--rate EVENTS] [--rounds N] [--relay-from DIR ...]

All relays stay, with the same streams open, and short rounds alternate between them, so that other work of the machine falls on
all alike. Needs redis-server (Debian: redis-server), which has the other core. Its own CPU time is not in the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sidebyside.lockstep import Stream, Upstream
from sidebyside.peers import relay_command
from sidebyside.processes import RELAY_CORE, ROOT, Started, cpu_seconds, free_port, started, wait_for_port
from sidebyside.redis_server import redis_server

KEPT = {"not kept": {}, "memory": {"RELAY_RESUME": "memory"}, "redis": {"RELAY_RESUME": "redis"}}
WARM_UP_ROUNDS = 1
# Streams are silent while the other relays have their rounds.
PATIENCE = {"RELAY_READ_TIMEOUT_SECONDS": "3600"}


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument(
        "--rate", type=float, default=20.0, help="events a second on each stream (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round on one relay (default: %(default)s)")
    parser.add_argument("--relay-from", type=Path, action="append", default=[], metavar="DIR", help="another checkout")
    arguments = parser.parse_args()
    checkouts = {"": ROOT} | {f"@{folder}": folder.resolve() for folder in arguments.relay_from}
    steps = max(1, round(arguments.seconds * arguments.rate))
    costs: dict[str, list[float]] = {}
    async with Upstream().serving() as upstream:
        with contextlib.ExitStack() as opened, tempfile.TemporaryDirectory() as folder:
            relays = {
                f"{kept}{name}": opened.enter_context(
                    _relay(checkout, env, upstream.port, Path(folder) / f"{kept} {number}")
                )
                for number, (name, checkout) in enumerate(checkouts.items())
                for kept, env in KEPT.items()
                if kept != "not kept" or checkout == ROOT
            }
            streams = {}
            for name, (_, port) in relays.items():
                streams[name] = [await upstream.open(port) for _ in range(arguments.streams)]
            for number in range(arguments.rounds + WARM_UP_ROUNDS):
                for name in relays if number % 2 else reversed(relays):
                    spent = await _round(relays[name][0], streams[name], steps, 1 / arguments.rate)
                    if number >= WARM_UP_ROUNDS:
                        costs.setdefault(name, []).append(spent)
    print("| streams kept | CPU, us per event | to not kept |\n|---|---|---|")
    for name in relays:
        ratios = [spent / base for spent, base in zip(costs[name], costs["not kept"], strict=True)]
        print(f"| {name} | {_shown(costs[name], 1)} | {_shown(ratios, 3)} |")
    return 0


@contextlib.contextmanager
def _relay(checkout: Path, env: dict[str, str], upstream: int, folder: Path) -> Iterator[tuple[Started, int]]:
    folder.mkdir()
    port, base = free_port(), f"http://127.0.0.1:{upstream}"
    with contextlib.ExitStack() as opened:
        if env.get("RELAY_RESUME") == "redis":
            env = {**env, "RELAY_REDIS_URL": f"redis://127.0.0.1:{opened.enter_context(redis_server(folder))}"}
        command, more = relay_command(checkout, f"{base}/v1", f"{base}/otlp", folder, port=port)
        process = opened.enter_context(
            started([*command, "--no-diagnostics"], RELAY_CORE, {**more, **PATIENCE, **env}, cwd=folder)
        )
        wait_for_port(port, process)
        yield process, port


async def _round(process: Started, streams: list[Stream], steps: int, interval: float) -> float:
    """Microseconds of CPU time per event of a process, while each stream gets this many events."""
    began = cpu_seconds(process.pid)
    for _ in range(steps):
        pause = asyncio.create_task(asyncio.sleep(interval))
        for stream in streams:
            await stream.step(1)
        await pause
    await asyncio.sleep(interval)  # what is kept is copied a moment later
    return (cpu_seconds(process.pid) - began) / (steps * len(streams)) * 1e6


def _shown(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f} .. {max(values):.{digits}f}]"


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
