"""What always-on observation costs a busy service: the same process, with its monitor running and with its monitor stopped.

    python tests/bench/bench_observation.py [--pairs 20] [--seconds 3] [--clients 50]
    python tests/bench/bench_observation.py --only memory [--memory-pairs 3]

The service streams to its clients as fast as it can; its monitor reads it once a second, as always. Rounds with the
monitor running and with it stopped (SIGSTOP: it asks nothing) take turns, so that a machine that grows slower
or faster does so for both. The ratios are of neighbouring rounds. On a machine with other work they are too noisy for a
per cent; what decides is the CPU time of the agent's thread, which the service cannot use meanwhile, and its share of
all that the service used. The memory is that of the same service, unmodified, under `diagnostics run` and without it. Exit
code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

APP = """
import asyncio
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from diagnostics import instrument

app = FastAPI()
ledger = instrument(app)

@app.get("/stream")
async def stream():
    async def events():
        for number in range(200):
            yield f"data: {number:>90}\\n\\n"
            await asyncio.sleep(0)
    return StreamingResponse(events(), media_type="text/event-stream")
"""
MEMORY_TARGET = 0.7  # MiB
SHARE_TARGET = 0.01
REQUEST = b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def client(port: int, until: float, counted: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while time.monotonic() < until:
            writer.write(REQUEST)
            body = await reader.readuntil(b"0\r\n\r\n")
            counted[0] += body.count(b"data:")
    finally:
        writer.close()
        await writer.wait_closed()


class Round(NamedTuple):
    """What one round measured: events a second, the service's CPU microseconds an event, its agent's share of that CPU."""

    watched: bool
    rate: float
    cpu: float
    share: float


async def round_(port: int, pid: int, seconds: float, clients: int, watched: bool) -> Round:
    counted, cpu, began = [0], cpu_seconds(pid), time.monotonic()
    await asyncio.gather(*(client(port, began + seconds, counted) for _ in range(clients)))
    took = time.monotonic() - began
    loop, others = (now - before for now, before in zip(cpu_seconds(pid), cpu, strict=True))
    return Round(watched, counted[0] / took, (loop + others) / counted[0] * 1e6, others / (loop + others))


def cpu_seconds(pid: int) -> tuple[float, float]:
    """Of the main thread, which runs the loop, and of all others, which is the agent's: this service has no more.

    From the scheduler's own nanoseconds: /proc/<pid>/stat counts in hundredths of a second.
    """
    used = {
        int(thread.name): int((thread / "schedstat").read_text(encoding="utf-8").split()[0]) / 1e9
        for thread in Path(f"/proc/{pid}/task").iterdir()
    }
    return used[pid], sum(used.values()) - used[pid]


def measure(pairs: int, seconds: float, clients: int, folder: Path) -> list[tuple[Round, Round]]:
    """Pairs of neighbouring rounds: (watched, not watched)."""
    (folder / "service.py").write_text(APP, encoding="utf-8")
    port = 18_000 + os.getpid() % 10_000
    log = folder / "log"
    serve = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port), "--no-access-log"]
    command = [sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", *serve]
    environment = {**os.environ, "DIAGNOSTICS_DIR": str(folder / "dir")}
    with open(log, "wb") as output:
        run = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    pid = monitor = 0
    try:
        url = wait_for(log, "diagnostics http").split()[1]
        wait_for(log, "Uvicorn running")
        pid, monitor = service_and_monitor(run.pid, serve)
        asyncio.run(round_(port, pid, 2 * seconds, clients, True))  # warm
        rounds: list[Round] = []
        for number in range(2 * pairs):
            stopped = number % 4 in (1, 2)  # on, off, off, on: what drifts steadily cancels out
            os.kill(monitor, signal.SIGSTOP if stopped else signal.SIGCONT)
            rounds.append(asyncio.run(round_(port, pid, seconds, clients, not stopped)))
        os.kill(monitor, signal.SIGCONT)
        with urllib.request.urlopen(f"{url}/timeline?format=csv", timeout=30) as answer:
            print(f"{len(answer.read().splitlines()) - 1} readings were recorded meanwhile")
    finally:
        if monitor:
            os.kill(monitor, signal.SIGCONT)
        run.terminate()
        run.wait()
    neighbours = zip(rounds[::2], rounds[1::2], strict=True)
    return [(one, other) if one.watched else (other, one) for one, other in neighbours]


def service_and_monitor(run: int, serve: list[str]) -> tuple[int, int]:
    """Two children of `diagnostics run`: the service, which is known by its command, and the monitor, its first child."""
    children = [int(child) for child in Path(f"/proc/{run}/task/{run}/children").read_text(encoding="utf-8").split()]
    words = "\0".join(serve).encode()
    (service,) = (child for child in children if Path(f"/proc/{child}/cmdline").read_bytes().startswith(words))
    return service, children[0]


# `names` makes the service of each pair of another size: where its own names nearly fill a table of the interpreter's (that of
# interned strings, of modules), the first of ours doubles it, and that pair shows 0.4 MiB more.
PLAIN = """
import sys
from fastapi import FastAPI
app = FastAPI()
names = [sys.intern(f"name {{number}}") for number in range({names})]
"""
NAMES_MORE = 700


def anonymous_bytes(folder: Path, watched: bool, names: int = 0) -> int:
    """Memory of a service's own that idles, after five of the monitor's looks; mapped files are everybody's."""
    folder.mkdir()
    (folder / "plain.py").write_text(PLAIN.format(names=names), encoding="utf-8")
    serve = [sys.executable, "-m", "uvicorn", "plain:app", "--port", "0", "--no-access-log"]
    under = [sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--"] if watched else []
    environment = {
        **os.environ,
        "DIAGNOSTICS_DIR": str(folder / "dir"),
        "PYTHONPYCACHEPREFIX": str(folder.parent / "pyc"),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    log = folder / "log"
    with open(log, "wb") as output:
        process = subprocess.Popen([*under, *serve], cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        wait_for(log, "Uvicorn running")
        time.sleep(6)
        pid = process.pid
        if watched:
            pid, _ = service_and_monitor(pid, serve)
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
    finally:
        process.terminate()
        process.wait()


def memory(pairs: int, folder: Path) -> list[float]:
    """MiB that observation adds, for each pair of services, one of them with a monitor; which is first takes turns."""
    anonymous_bytes(folder / "compiles", True)
    added = []
    for number in range(pairs):
        used = {}
        for watched in (number % 2 == 0, number % 2 == 1):
            used[watched] = anonymous_bytes(folder / f"{number}-{watched}", watched, NAMES_MORE * number)
        added.append((used[True] - used[False]) / 2**20)
    return added


def wait_for(log: Path, text: str) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for line in log.read_text(encoding="utf-8").splitlines():
            if text in line:
                return line
        time.sleep(0.05)
    raise SystemExit(f"{text!r} did not appear:\n{log.read_text(encoding='utf-8')}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--memory-pairs", type=int, default=3, help="at least 2, 15 s each")
    parser.add_argument("--only", choices=("memory", "cpu"), help="one of the two parts")
    arguments = parser.parse_args()
    missed = []
    with tempfile.TemporaryDirectory(prefix="highwater-bench-") as folder:
        if arguments.only != "cpu":
            added = memory(max(2, arguments.memory_pairs), Path(folder))
            header(f"CPython {platform.python_version()}, {len(added)} pairs of idle services")
            row(f"memory of the service, MiB more when watched (target {MEMORY_TARGET:g})", added)
            missed.append(statistics.median(added) > MEMORY_TARGET)
        if arguments.only != "memory":
            pairs = measure(arguments.pairs, arguments.seconds, arguments.clients, Path(folder))
            rate = statistics.median(alone.rate for _, alone in pairs)
            header(
                f"{len(pairs)} pairs of {arguments.seconds:g} s, {arguments.clients} clients, {rate:,.0f} events a second"
            )
            row("events a second, watched / not", [watched.rate / alone.rate for watched, alone in pairs])
            row("service's CPU an event, watched / not", [watched.cpu / alone.cpu for watched, alone in pairs])
            shares = [watched.share for watched, _ in pairs]
            row(f"agent's thread, share of the service's CPU (target {SHARE_TARGET:g})", shares)
            missed.append(statistics.median(shares) > SHARE_TARGET)
    return int(any(missed))


def header(of: str) -> None:
    print(f"{of}\n\n| | median | quartiles | range |\n|---|---|---|---|")


def row(name: str, values: list[float]) -> None:
    low, middle, high = statistics.quantiles(values, n=4)
    print(f"| {name} | {middle:.4f} | {low:.4f} to {high:.4f} | {min(values):.4f} to {max(values):.4f} |")


if __name__ == "__main__":
    sys.exit(main())
