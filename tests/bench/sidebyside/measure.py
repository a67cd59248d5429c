"""One peer under one load: CPU per event, events per second, what was delivered, memory, latency; and who was the limit."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from .loads import Load
from .peers import Serving
from .processes import TRAFFIC_CORE, PeerFailedError, beside_seconds, cpu_seconds, rss_bytes, started
from .traffic import Traffic

WARM_UP = Load("warm-up", 4, 20, 0.0)
SCRAPE_SECONDS = 5.0
SETTLE_SECONDS = 2.5
SHORTEST_WINDOW_SECONDS = 0.8
# Above this share of its core the harness may have been the limit, if the peer's own core was not as busy.
BUSY = 0.85


@dataclass
class Measured:
    """CPU in microseconds per event, memory in KiB per stream, latency in ms, shares of one core.

    monitor_us  CPU of the relay's monitor in the same time; sum_us: cpu_us with it
    delivered   events that came in time, of all
    exact       of these, what came as it was sent, byte by byte
    beside      what the relay's monitor used
    harness     what upstream and clients used
    """

    cpu_us: float
    monitor_us: float
    sum_us: float
    events_per_second: float
    delivered: float
    exact: float
    rss_kib: float
    latency_p50: float
    latency_p99: float
    first_p50: float
    busy: float
    beside: float
    harness: float
    harness_bound: bool


def measure(serving: Serving, load: Load, traffic: Traffic) -> Measured:
    """Run one load against a peer that serves. Memory is meaningful of a fresh process only."""
    pid = serving.pid
    rss_before = peak = rss_bytes(pid)
    watch = Watch(pid)
    beside_before, harness_before = beside_seconds(pid), traffic.upstream_cpu_seconds() + time.process_time()
    with (
        scraped(serving.monitor),
        started(traffic.load_command(serving.url, load), TRAFFIC_CORE) as client,
    ):
        while client.process.poll() is None:
            peak = max(peak, rss_bytes(pid))
            watch.look()
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.process.wait(0.1)
        watch.look()
        report = json.loads(client.output())
    if report["problems"]:
        print(f"{serving.url}: {report['problems']}", file=sys.stderr)
    if report["events"] == 0:
        raise PeerFailedError(f"no event came through: {report['problems']}")
    seconds = report["seconds"]
    harness = traffic.upstream_cpu_seconds() + time.process_time() - harness_before + report["own_cpu_seconds"]
    cpu_us, monitor_us = watch.cpu_us(report, load)
    return Measured(
        cpu_us=cpu_us,
        monitor_us=monitor_us,
        sum_us=cpu_us + monitor_us,
        events_per_second=report["events_per_second"],
        delivered=report["events"] / report["expected"],
        exact=report["exact"] / report["events"],
        rss_kib=(peak - rss_before) / load.streams / 1024,
        latency_p50=report["latency_ms"].get("p50", float("nan")),
        latency_p99=report["latency_ms"].get("p99", float("nan")),
        first_p50=report["first_event_ms"].get("p50", float("nan")),
        busy=watch.cpu / seconds,
        beside=(beside_seconds(pid) - beside_before) / seconds,
        harness=harness / seconds,
        harness_bound=harness / seconds > BUSY > watch.cpu / seconds,
    )


def settle(serving: Serving, traffic: Traffic) -> None:
    """Have everything loaded that a first stream, a first scrape and a first export of traces load."""
    with scraped(serving.monitor):
        traffic.run(serving.url, WARM_UP)
        time.sleep(SETTLE_SECONDS)


class Watch:
    """The CPU of a process, and of what runs beside it, over time; of a paced load, per event while all streams are open."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._looks: list[tuple[float, float, float]] = []
        self.look()

    def look(self) -> None:
        """Note wall clock and CPU."""
        self._looks.append((time.time(), cpu_seconds(self._pid), beside_seconds(self._pid)))

    @property
    def cpu(self) -> float:
        return self._looks[-1][1] - self._looks[0][1]

    def cpu_us(self, report: dict[str, Any], load: Load) -> tuple[float, float]:
        """Microseconds per event that arrived, of the process and of what runs beside it."""
        if load.pace == 0:
            (_, *began), (_, *ended) = self._looks[0], self._looks[-1]
            return _each(began, ended, report["events"])
        start = report["start_unix"]
        # All streams are open and none has ended; a peer that is overrun has no such time: then as the load says.
        begin, end = report["open_seconds"], report["ending_seconds"] - 0.1
        if end - begin < SHORTEST_WINDOW_SECONDS:
            begin, end = load.opening + 0.1, load.seconds - load.opening - 0.25
        inside = [look for look in self._looks if begin <= look[0] - start <= end]
        if len(inside) < 2:
            raise PeerFailedError("the load ended before it could be looked at")
        (first, *began), (last, *ended) = inside[0], inside[-1]
        return _each(began, ended, arrived(report, last - start) - arrived(report, first - start))


def _each(began: Sequence[float], ended: Sequence[float], events: float) -> tuple[float, float]:
    cpu, beside = (1e6 * (after - before) / max(1.0, events) for before, after in zip(began, ended, strict=True))
    return cpu, beside


def arrived(report: dict[str, Any], at: float) -> float:
    """How many events had come `at` seconds after the start, between two buckets by interpolation."""
    totals = [0, *accumulate(report["timeline"])]
    place = min(at / report["bucket_seconds"], len(totals) - 1.001)
    whole = int(place)
    return float(totals[whole] + (place - whole) * (totals[whole + 1] - totals[whole]))


@contextlib.contextmanager
def scraped(monitor: str | None) -> Iterator[None]:
    """Asks the monitor for its metrics as a Prometheus would. A scrape that fails is the peer's failure."""
    if monitor is None:
        yield
        return
    ended, problems = threading.Event(), list[Exception]()

    def scrape() -> None:
        while True:
            try:
                with urllib.request.urlopen(f"{monitor}/metrics", timeout=10) as answer:
                    answer.read()
            except OSError as error:
                problems.append(error)
            if ended.wait(SCRAPE_SECONDS):
                return

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if problems:
        raise PeerFailedError(f"{monitor}/metrics: {problems[0]}")
