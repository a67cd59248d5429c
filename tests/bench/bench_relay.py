"""The relay side by side with its peers: CPU per event, throughput, memory per stream, latency.

    python tests/bench/bench_relay.py [--quick] [--rounds N] [--peers bare,sdk,...] [--json FILE]

One core for the relay under test, the other for upstream and clients. Rounds are interleaved: each round measures every
peer once, so that a change of the machine's speed meets all alike; medians and ranges are printed, and ratios to `bare`
taken round by round. Every event is checked on arrival; a run in which one is missing says so and counts for nothing.
Needs Go (Debian: golang-go) to build the traffic, and nginx for its row.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RELAY_CORE, TRAFFIC_CORE = 0, 1
PAGE = resource.getpagesize()
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """What the clients do. `pace` is events per second of each stream, 0 a burst."""

    name: str
    streams: int
    events: int
    pace: float
    rounds: int = 1


LOADS = {
    "paced": Load("100 streams, 20 events/s each", 100, 160, 20.0),
    "burst": Load("32 streams, as fast as possible", 32, 3000, 0.0),
    "thousand": Load("1,000 streams, 20 events/s each", 1000, 160, 20.0),
}
# Opening a stream costs as much as hundreds of its events: paced loads are measured once all streams are open.
OPENING_SECONDS = 3.0


@dataclass
class Measured:
    """One peer under one load. CPU in microseconds per event, memory in KiB per stream, latency in ms."""

    cpu_us: float
    events_per_second: float
    delivered: float
    rss_kib: float
    latency_p50: float
    latency_p99: float
    first_p50: float
    problems: dict[str, int]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of the small loads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--loads", default="paced,burst,thousand")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    loads = ["paced", "burst"] if arguments.quick else arguments.loads.split(",")
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        traffic = build_traffic(folder)
        upstream = stack.enter_context(started([traffic, "upstream"], TRAFFIC_CORE, stdin=True))
        base = upstream.line("upstream ").split()[1]
        results = run(arguments.peers.split(","), loads, rounds, traffic, base, folder)
    for load in loads:
        print(
            table(load, {peer: results[peer, load] for peer in arguments.peers.split(",") if (peer, load) in results})
        )
    if arguments.json:
        arguments.json.write_text(
            json.dumps(
                {f"{peer}/{load}": [vars(one) for one in runs] for (peer, load), runs in results.items()}, indent=1
            )
        )
    return 0


def run(
    peers: list[str], loads: list[str], rounds: int, traffic: str, base: str, folder: Path
) -> dict[tuple[str, str], list[Measured]]:
    results: dict[tuple[str, str], list[Measured]] = {}
    for number in range(rounds):
        for peer in peers if number % 2 == 0 else reversed(peers):
            for load in loads:
                print(f"round {number + 1} of {rounds}: {peer}, {load}", file=sys.stderr, flush=True)
                # A fresh process each time: what one load leaves in memory must not count for the next.
                with PEERS[peer](base, folder) as (process, url):
                    results.setdefault((peer, load), []).append(measure(process, url, LOADS[load], traffic))
    return results


def measure(process: Started, url: str, load: Load, traffic: str) -> Measured:
    warm_up = Load("", 4, 20, 0.0)
    one_load(traffic, url, warm_up)
    rss_before = max_rss(process.pid)
    window = Window(process.pid, load)
    peak = rss_before
    with started(load_command(traffic, url, load), TRAFFIC_CORE) as client:
        while client.process.poll() is None:
            peak = max(peak, max_rss(process.pid))
            window.look()
            time.sleep(0.1)
        assert client.process.stdout is not None
        report = json.loads(client.process.stdout.read())
    return Measured(
        cpu_us=window.cpu_us(report["events"]),
        events_per_second=report["events_per_second"],
        delivered=report["events"] / report["expected"],
        rss_kib=(peak - rss_before) / load.streams / 1024,
        latency_p50=(report["latency_ms"] or {}).get("p50", float("nan")),
        latency_p99=(report["latency_ms"] or {}).get("p99", float("nan")),
        first_p50=(report["first_event_ms"] or {}).get("p50", float("nan")),
        problems=report["problems"],
    )


class Window:
    """The relay's CPU per event: of a burst over all of it, of paced streams between their opening and their end."""

    def __init__(self, pid: int, load: Load) -> None:
        self._pid = pid
        self._load = load
        self._looks: list[tuple[float, float]] = []
        self.look()

    def look(self) -> None:
        """Note time and CPU."""
        with contextlib.suppress(FileNotFoundError):
            self._looks.append((time.monotonic(), cpu_seconds(self._pid)))

    def cpu_us(self, events: int) -> float:
        self.look()
        load = self._load
        began = self._looks[0][0]
        if load.pace == 0:
            return 1e6 * (self._looks[-1][1] - self._looks[0][1]) / max(1, events)
        # A relay that cannot keep up takes longer than the pace says; its events are then spread over that time.
        paced_end = began + load.events / load.pace - 0.5
        inside = [look for look in self._looks if began + OPENING_SECONDS <= look[0] <= paced_end]
        (first, cpu_first), (last, cpu_last) = inside[0], inside[-1]
        whole = max(self._looks[-1][0] - began, load.events / load.pace)
        return 1e6 * (cpu_last - cpu_first) / (events / whole * (last - first))


def one_load(traffic: str, url: str, load: Load) -> dict[str, Any]:
    with started(load_command(traffic, url, load), TRAFFIC_CORE) as client:
        found: dict[str, Any] = json.loads(client.process.stdout.read())
        return found


def load_command(traffic: str, url: str, load: Load) -> list[str]:
    return [
        traffic, "load", "-url", url, "-streams", str(load.streams), "-events", str(load.events),
        "-pace", str(load.pace), "-rounds", str(load.rounds),
    ]  # fmt: skip


# The peers


def python_peer(module: str) -> Callable[[str, Path], contextlib.AbstractContextManager[tuple[Started, str]]]:
    @contextlib.contextmanager
    def serve(base: str, folder: Path) -> Iterator[tuple[Started, str]]:
        port = free_port()
        command = [
            sys.executable, "-m", "uvicorn", f"{module}:app", "--port", str(port), "--loop", "uvloop",
            "--http", "httptools", "--no-access-log", "--log-level", "warning", "--app-dir", str(HERE / "peers"),
        ]  # fmt: skip
        with started(command, RELAY_CORE, env={"UPSTREAM_BASE_URL": base}) as process:
            wait_for_port(port)
            yield process, f"http://127.0.0.1:{port}/v1/chat/completions"

    return serve


@contextlib.contextmanager
def relay_peer(base: str, folder: Path) -> Iterator[tuple[Started, str]]:
    """The relay as it comes: ledger, metrics, recorder, limits; traces go to a collector that accepts them."""
    command = [sys.executable, "-m", "relay", "serve", "--port", "0", "--diagnostics", "127.0.0.1:0"]
    with tempfile.TemporaryDirectory(dir=folder) as private:
        env = {"RELAY_UPSTREAM_BASE_URL": base, "DIAGNOSTICS_DIR": private}
        with started(command, RELAY_CORE, env=env) as process:
            yield process, process.line("relay ").split()[1] + "/v1/chat/completions"


@contextlib.contextmanager
def nginx_peer(base: str, folder: Path) -> Iterator[tuple[Started, str]]:
    port = free_port()
    with tempfile.TemporaryDirectory(dir=folder) as private:
        config = Path(private) / "nginx.conf"
        config.write_text(
            f"daemon off; worker_processes 1; pid {private}/pid; error_log {private}/error.log;"
            f"events {{ worker_connections 20000; }}"
            f"http {{ access_log off; client_body_temp_path {private}/b; proxy_temp_path {private}/p;"
            f" fastcgi_temp_path {private}/f; uwsgi_temp_path {private}/u; scgi_temp_path {private}/s;"
            f" server {{ listen 127.0.0.1:{port}; location /v1/ {{ proxy_pass {base}/; proxy_http_version 1.1;"
            f' proxy_set_header Connection ""; proxy_buffering off; }} }} }}'
        )
        with started(["nginx", "-c", str(config)], RELAY_CORE) as process:
            wait_for_port(port)
            yield process, f"http://127.0.0.1:{port}/v1/chat/completions"


PEERS: dict[str, Callable[[str, Path], contextlib.AbstractContextManager[tuple[Started, str]]]] = {
    "bare": python_peer("bare"),
    "relay": relay_peer,
    "sdk": python_peer("sdk"),
    "sdk_otel": python_peer("sdk_otel"),
}
if shutil.which("nginx"):
    PEERS["nginx"] = nginx_peer


# Processes


@dataclass
class Started:
    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self, beginning: str) -> str:
        """The first line of output that begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(beginning):
                return line
        raise SystemExit(f"{self.process.args} ended without printing {beginning!r}")


@contextlib.contextmanager
def started(
    command: list[str], core: int, env: dict[str, str] | None = None, *, stdin: bool = False
) -> Iterator[Started]:
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command],
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )
    try:
        yield Started(process)
    finally:
        if process.stdin:
            process.stdin.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout:
            process.stdout.close()


def build_traffic(folder: Path) -> str:
    if shutil.which("go") is None:
        raise SystemExit("the traffic is compiled with Go: apt-get install golang-go")
    binary = folder / "traffic"
    env = {**os.environ, "GOCACHE": str(folder / "go-cache"), "GOFLAGS": "-mod=mod"}
    subprocess.run(["go", "build", "-o", str(binary), "."], cwd=HERE / "traffic", env=env, check=True)
    return str(binary)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit(f"nothing listens on port {port}") from None
            time.sleep(0.05)


def serving_pids(pid: int) -> list[int]:
    """The process and, for nginx, its worker; not the relay's monitor, which is not in the path of a stream."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children if b"nginx" in Path(f"/proc/{child}/cmdline").read_bytes())]


def cpu_seconds(pid: int) -> float:
    total = 0
    for each in serving_pids(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def max_rss(pid: int) -> int:
    try:
        return sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) * PAGE for each in serving_pids(pid))
    except FileNotFoundError:
        return 0


# The report


def table(load: str, results: dict[str, list[Measured]]) -> str:
    """One load as a Markdown table: medians, with ranges where they matter."""
    lines = [
        f"\n### {load}: {LOADS[load].name}\n",
        "| | CPU us/event | to bare | events/s | delivered | latency p50 / p99 ms | first event ms | KiB per stream |",
        "|---|---|---|---|---|---|---|---|",
    ]
    bare = [one.cpu_us for one in results.get("bare", [])]
    for peer, runs in results.items():
        whole = [one for one in runs if one.delivered == 1.0] or runs
        ratios = [one.cpu_us / base for one, base in zip(runs, bare, strict=False)]
        problems = {kind: count for one in runs for kind, count in one.problems.items()}
        lines.append(
            f"| {peer} | {spread([one.cpu_us for one in whole], 1)} | {spread(ratios, 2) if bare else ''} "
            f"| {statistics.median(one.events_per_second for one in whole):,.0f} "
            f"| {100 * min(one.delivered for one in runs):.0f} %{' ' + str(problems) if problems else ''} "
            f"| {statistics.median(one.latency_p50 for one in whole):.2f} / "
            f"{statistics.median(one.latency_p99 for one in whole):.2f} "
            f"| {statistics.median(one.first_p50 for one in whole):.1f} "
            f"| {statistics.median(one.rss_kib for one in whole):.1f} |"
        )
    return "\n".join(lines)


def spread(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return (
        f"{middle:.{digits}f}" if len(values) == 1 else f"{middle:.{digits}f} [{low:.{digits}f} .. {high:.{digits}f}]"
    )


if __name__ == "__main__":
    sys.exit(main())
