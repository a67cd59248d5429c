"""What a scrape costs a service with thousands of open streams.

    python tests/bench/bench_metrics.py [--streams 5000] [--scrapes 30] [--subject plain|instrumented|relay ...]

Three subjects, each a real server with that many real connections, whose streams have begun and wait:
an unmodified uvicorn app under `diagnostics run`, the same with `instrument(app)`, and `relay serve` with its simulator.
`/metrics` is asked for once a second while the recorder goes on as always. Of the service is measured the CPU time
of the agent's thread, which holds the GIL for as long as that, with scrapes and without by turns; and, where the app can
tell it, how long its loop stood still. On a machine with other work the time until the answer is there is that work's;
the CPU time that agent and monitor spend on a scrape is what it would take alone. Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

APP = """
import asyncio, os, resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
from contextlib import asynccontextmanager
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

gap = 0.0

async def watch():
    global gap
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        gap, last = max(gap, now - last), now

@asynccontextmanager
async def lifespan(app):
    watching = asyncio.create_task(watch())
    yield
    watching.cancel()

app = FastAPI(lifespan=lifespan)
if os.environ.get("BENCH_LEDGER"):
    from diagnostics import instrument
    instrument(app)

@app.get("/stream")
async def stream():
    async def events():
        yield "data: first\\n\\n"
        await asyncio.sleep(3600)
    return StreamingResponse(events(), media_type="text/event-stream")

@app.get("/gap")
async def longest():
    global gap
    told, gap = gap, 0.0
    return told
"""
MODEL = "sim:events=inf,pace=0.02,first=0"


@dataclass(frozen=True)
class Service:
    """A service that runs: where it listens, where its monitor does, and the process that serves."""

    port: int
    monitor: str
    pid: int
    monitor_pid: int
    path: str
    tells_gaps: bool

    def gap_ms(self) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/gap", timeout=30) as answer:
            return 1000 * float(answer.read())

    def agent_cpu(self) -> float:
        """CPU seconds of all threads but the loop's: the agent's, and of these services no other's."""
        used = {
            int(thread.name): int((thread / "schedstat").read_text(encoding="utf-8").split()[0]) / 1e9
            for thread in Path(f"/proc/{self.pid}/task").iterdir()
        }
        return sum(used.values()) - used[self.pid]

    def monitor_cpu(self) -> float:
        threads = Path(f"/proc/{self.monitor_pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text(encoding="utf-8").split()[0]) / 1e9 for thread in threads)


@contextlib.contextmanager
def plain(folder: Path, ledger: bool = False) -> Iterator[Service]:
    (folder / "service.py").write_text(APP, encoding="utf-8")
    command = [sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", sys.executable,
               "-m", "uvicorn", "service:app", "--port", "0", "--backlog", "8192", "--no-access-log"]  # fmt: skip
    with running(command, folder, {"BENCH_LEDGER": "1"} if ledger else {}) as (process, log):
        monitor = wait_for(log, "diagnostics http").split()[1]
        port = int(wait_for(log, "Uvicorn running").split("http://127.0.0.1:")[1].split()[0])
        yield Service(port, monitor, children(process.pid)[0], process.pid, "/stream", True)


@contextlib.contextmanager
def relay(folder: Path) -> Iterator[Service]:
    settings = {"RELAY_MAX_STREAMS": "0", "RELAY_BUDGET_BYTES": "0", "RELAY_UPSTREAM_MAX_CONNECTIONS": "10000",
                "RELAY_READ_TIMEOUT_SECONDS": "3600"}  # fmt: skip
    command = [sys.executable, "-m", "relay", "serve", "--port", "0", "--diagnostics", "127.0.0.1:0"]
    with running(command, folder, settings) as (process, log):
        monitor = next(word for word in wait_for(log, "/debug/memory").split() if word.startswith("http"))
        port = int(wait_for(log, "relay http").split("http://127.0.0.1:")[1].split("/")[0])
        beside = next(child for child in children(process.pid) if b"diagnostics" in command_of(child))
        yield Service(port, monitor, process.pid, beside, f"/stream?prompt=x&model={MODEL}", False)


@contextlib.contextmanager
def running(command: list[str], folder: Path, extra: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    log = folder / "log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DIAGNOSTICS_DIR": str(folder / "dir"), **extra}
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        yield process, log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def streams(service: Service, count: int) -> Iterator[None]:
    """`count` streams, each begun: its first event has come."""
    clients: list[socket.socket] = []
    request = f"GET {service.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    try:
        while len(clients) < count:
            some = [
                socket.create_connection(("127.0.0.1", service.port), 60) for _ in range(min(200, count - len(clients)))
            ]
            clients += some
            for client in some:
                client.sendall(request)
            for client in some:
                received = b""
                while b"data:" not in received:
                    piece = client.recv(65536)
                    if not piece:
                        raise SystemExit(f"a stream ended at once: {received[:300]!r}")
                    received += piece
        yield
    finally:
        for client in clients:
            client.close()


@dataclass
class Found:
    """Milliseconds. Of each scrape: until its whole body was there, and how long the loop stood still around it. Of each turn
    of five seconds: CPU time a second of the agent's thread, and of the monitor."""

    scrapes: list[float]
    gaps: list[float]
    quiet_gaps: list[float]
    scraped: list[float]
    unscraped: list[float]
    monitor: list[float]
    monitor_unscraped: list[float]
    size: int = 0


def measure(service: Service, scrapes: int) -> Found:
    found = Found([], [], [], [], [], [], [])
    address = service.monitor.split("/debug")[0] + "/metrics"
    turns = max(2, scrapes // 5)
    for number in range(2 * turns):
        with_scrapes = number % 4 in (0, 3)  # on, off, off, on: what drifts steadily cancels out
        began, cpu, beside = time.monotonic(), service.agent_cpu(), service.monitor_cpu()
        for second in range(5):
            time.sleep(max(0.0, began + second + 0.5 - time.monotonic()))
            if service.tells_gaps:
                service.gap_ms()
            if with_scrapes:
                asked = time.monotonic()
                with urllib.request.urlopen(address, timeout=30) as answer:
                    found.size = len(answer.read())
                found.scrapes.append(1000 * (time.monotonic() - asked))
            else:
                time.sleep(0.1)
            if service.tells_gaps:
                (found.gaps if with_scrapes else found.quiet_gaps).append(service.gap_ms())
        time.sleep(max(0.0, began + 5 - time.monotonic()))
        took = time.monotonic() - began
        spent = 1000 * (service.agent_cpu() - cpu) / took
        (found.monitor if with_scrapes else found.monitor_unscraped).append(
            1000 * (service.monitor_cpu() - beside) / took
        )
        (found.scraped if with_scrapes else found.unscraped).append(spent)
    return found


def wait_for(log: Path, text: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for line in log.read_text(encoding="utf-8").splitlines():
            if text in line:
                return line
        time.sleep(0.05)
    raise SystemExit(f"{text!r} did not appear:\n{log.read_text(encoding='utf-8')}")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def row(what: str, values: list[float], bound: float | None = None) -> bool:
    middle = statistics.median(values)
    met = bound is None or middle <= bound
    target = "" if bound is None else f"≤ {bound:g} ms, {'met' if met else '**missed**'}"
    print(f"| {what} | {middle:.1f} ms | {min(values):.1f} to {max(values):.1f} | {len(values)} | {target} |")
    return met


def report(name: str, found: Found) -> bool:
    own = [scraped - statistics.median(found.unscraped) for scraped in found.scraped]
    met = row(f"{name}: /metrics, {found.size / 1024:.0f} KiB", found.scrapes, 150)
    met &= row(f"{name}: the agent's CPU for a scrape", own, 10)
    beside = [scraped - statistics.median(found.monitor_unscraped) for scraped in found.monitor]
    met &= row(f"{name}: CPU for a scrape, agent and monitor", [a + b for a, b in zip(own, beside, strict=True)], 150)
    row(f"{name}: the agent's CPU a second, without scrapes", found.unscraped)
    if found.gaps:
        row(f"{name}: the loop's longest standstill around a scrape", found.gaps)
        row(f"{name}: the same in as long without one", found.quiet_gaps)
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--scrapes", type=int, default=30)
    parser.add_argument("--subject", choices=("plain", "instrumented", "relay"), action="append")
    arguments = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < 2 * arguments.streams + 500:
        raise SystemExit(
            f"{arguments.streams} streams need {2 * arguments.streams + 500} descriptors, {most} are allowed"
        )
    print(f"{arguments.streams} open streams, load average {os.getloadavg()[0]:.1f} at the start\n")
    print("| | median | range | n | target |\n|---|---|---|---|---|")
    met = True
    for name in arguments.subject or ("plain", "instrumented", "relay"):
        with tempfile.TemporaryDirectory(prefix="hw-bench-") as folder:
            subject = relay(Path(folder)) if name == "relay" else plain(Path(folder), ledger=name == "instrumented")
            with subject as service, streams(service, arguments.streams):
                time.sleep(3)  # the first look at each of them is behind
                met &= report(name, measure(service, arguments.scrapes))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
