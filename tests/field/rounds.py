"""All that is found out of one service, within a time.

1. Alone and observed at the same time, on the same machine: the same requests, an idle time, signals, the end. Memory, CPU
   time and the idle verdict are of the idle time.
2. Half a minute of load on one that was started with the first ones, observed: its verdict, every kind of capture under a
   little load, the end. It has lived for a minute or more by then: a verdict needs readings.
3. The first round again for each other row of signals, without the idle time.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..services.exchange import Load, load, streams, wait_until_ready
from ..services.running import Failed, Running, beside, descendants, running
from ..services.usage import Usage, measure
from . import alike, seen
from .life import STREAMS, Life, live
from .promises import Report
from .table import Service

# A verdict takes 36 readings, one a second, after the first quarter of a process's life.
IDLE_SECONDS = 55.0
LOAD_SECONDS = 30.0
# Between the end of streams and the end of the service: what it prints when clients leave is printed by then.
_SETTLE_SECONDS = 2.0
_LIGHT_CLIENTS = 1
_LIGHT_PAUSE_SECONDS = 0.2
# What the end of a service may take of its time.
_END_SECONDS = 10.0
_MIB = 2**20
_OURS = re.compile(r"^diagnostics: |_highwater_diagnostics|/diagnostics/agent/|diagnostics-(lookout|agent)")


def examine(service: Service, environment: Path, folder: Path, seconds: float) -> Report:
    """One service, in about `seconds`: whatever is not reached by then is told as not measured."""
    report, until = Report(), time.monotonic() + seconds
    with (
        beside(service, folder) as upstream,
        ThreadPoolExecutor(1) as thread,
        running(service, environment, folder / "loaded", observed=True, upstream=upstream) as loaded,
    ):
        with _told(report, service.signals[0]):
            _first_round(service, environment, folder, upstream, thread, report)
        with _told(report, ("load",), loaded):
            _under_load(loaded, report, until)
        for signals in service.signals[1:]:
            if time.monotonic() + _needed(report) > until:
                report.unknown(f"signals ({' '.join(signals)})", "the time for this service was over")
                continue
            with _told(report, signals):
                _pair(service, environment, folder, upstream, signals, thread, report, _nothing, _settle)
    return report


def _needed(report: Report) -> float:
    """About how long one more row of signals takes: as long as the first one took to be ready, and to stop."""
    return float(sum(max(report.figures.get(what, (0.0,))) for what in ("ready", "stop"))) + _SETTLE_SECONDS


@contextlib.contextmanager
def _told(report: Report, words: tuple[str, ...], started: Running | None = None) -> Iterator[None]:
    """What keeps one round from being made is told, and the others are made all the same. `started`: what it is made with."""
    try:
        yield
    except (Failed, OSError, http.client.HTTPException, subprocess.TimeoutExpired, ValueError, LookupError) as error:
        says = f"{type(error).__name__}: {error}"
        if started is not None and (code := started.ended_within(1.0)) is not None:
            says += f"; it has ended with {code}, and said: {started.tail()[-1000:]}"
        report.judge(f"runs ({' '.join(words)})", False, says)


def _pair(
    service: Service, environment: Path, folder: Path, upstream: str, signals: tuple[str, ...], thread: ThreadPoolExecutor,
    report: Report, held: Callable[[Running], None], idle: Callable[[Running], None],
) -> tuple[Life, Life]:  # fmt: skip
    """One life alone, one observed, at the same time; what is alike between them is in the report."""
    run = " ".join(signals)
    name = run.replace(" ", "-")

    def one(observed: bool) -> Life:
        place = folder / f"{name}-{'observed' if observed else 'alone'}"
        return live(
            service, environment, place, signals, observed=observed, upstream=upstream, held=held, idle=idle
        )  # fmt: skip

    alone = thread.submit(one, False)
    observed = one(True)
    alike.compare(alone.result(), observed, run, report)
    return alone.result(), observed


def _first_round(
    service: Service, environment: Path, folder: Path, upstream: str, thread: ThreadPoolExecutor, report: Report
) -> None:
    usage: dict[bool, Usage] = {}
    beside_it: list[Usage] = []

    def held(started: Running) -> None:
        if started.observed:
            seen.judge_workers(started, report)
            seen.judge_streams(started, report, STREAMS)

    def idle(started: Running) -> None:
        if started.observed:
            if service.stream:
                seen.judge_streams_gone(started, report)
            else:
                seen.judge_workers(started, report)
            family = set(started.family())
            others = [started.process.pid, *(set(descendants(started.process.pid)) - family)]
            with ThreadPoolExecutor(1) as thread:
                monitor = thread.submit(measure, others, IDLE_SECONDS)
                usage[True] = measure(family, IDLE_SECONDS)
                beside_it.append(monitor.result())
            seen.judge_verdict(started, "idle verdict", report)
        else:
            usage[False] = measure(started.family(), IDLE_SECONDS)

    _pair(service, environment, folder, upstream, service.signals[0], thread, report, held, idle)
    with_us, alone, monitor = usage[True], usage[False], beside_it[0]
    report.figures["memory"] = [with_us.memory_bytes / _MIB, alone.memory_bytes / _MIB]
    report.figures["cpu"] = [with_us.cpu_percent, alone.cpu_percent]
    report.figures["monitor"] = [monitor.memory_bytes / _MIB, monitor.cpu_percent]


def _nothing(started: Running) -> None:
    pass


def _settle(started: Running) -> None:
    time.sleep(_SETTLE_SECONDS)


def _under_load(started: Running, report: Report, until: float) -> None:
    service = started.service
    wait_until_ready(started)
    assert service.load
    with load(started, service.load, LOAD_SECONDS) as came_to:
        time.sleep(LOAD_SECONDS)
        seen.judge_verdict(started, "loaded verdict", report)
    _judge_answers("load", came_to, report)
    before = {worker["pid"] for worker in seen.workers(started)}
    with (
        load(started, service.load, until - time.monotonic(), _LIGHT_CLIENTS, _LIGHT_PAUSE_SECONDS) as light,
        streams(started, service.stream, STREAMS) if service.stream else contextlib.nullcontext(),
    ):
        seen.judge_captures(started, report, lambda: until - _END_SECONDS - time.monotonic())
    _judge_answers("answers during captures", light, report)
    after = {worker["pid"] for worker in seen.workers(started)}
    report.judge("the same processes after captures", before == after, f"{sorted(before)} and then {sorted(after)}")
    _end(started, report)


def _judge_answers(name: str, came_to: Load, report: Report) -> None:
    told = f"{came_to.done} answered, {came_to.failed} failed{': ' + came_to.error if came_to.error else ''}"
    if came_to.done or came_to.failed:
        report.judge(name, not came_to.failed, told)
    else:
        report.unknown(name, "no request was sent and answered in the time")


def _end(started: Running, report: Report) -> None:
    family = descendants(started.process.pid)
    started.signal("TERM")
    code = started.ended_within(2 * _END_SECONDS)
    report.judge("ends after captures", code is not None, "still runs" if code is None else f"exit code {code}")
    left = started.left_behind(family) if code is not None else []
    report.judge("leaves nothing behind after captures", not left, ", ".join(left) or "nothing")
    ours = [line for line in started.stderr.splitlines()[1:] if _OURS.search(line)]
    report.judge("prints nothing of ours", not ours, "; ".join(ours[:4]) or "nothing")
