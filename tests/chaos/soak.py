"""A long time at half load: whether resident memory, descriptors and tasks grow, as slopes with their intervals.

    python -m tests.chaos.soak [--seconds 600] [--write docs/reliability.md]

The chaos suite's clients and faults come one after the other, as many a second as keep the relay half busy; once a minute one
objects capture is taken, as an operator would. What is read every second is fitted by a line; a slope whose 95 % interval
includes zero is no growth that was seen. The first fifth is warm-up. Readings one second apart are not independent: the
interval is that of means of BLOCKS blocks.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.documents import write

from .clients import CLIENTS, Mix, Wrong
from .faults import FAULTS, Script
from .relay import Relay
from .seeds import ANSWER_FAULTS, READERS
from .surroundings import Surroundings

__all__ = ["main", "slope"]

MARKS = ("<!-- soak: written by make soak -->", "<!-- end of soak -->")
BLOCKS = 20
WARM_UP = 0.2
# Of one core.
HALF = 0.5
CAPTURE_SECONDS = 60.0
MOST_CLIENTS = 60
STUDENT_95 = 2.101  # two-sided, 18 degrees of freedom: BLOCKS - 2
UNITS = {"RSS (KiB)": "KiB/h", "descriptors": "1/h", "tasks": "1/h"}

Row = tuple[float, float, float, float]  # seconds, RSS in KiB, descriptors, tasks


def slope(points: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Least squares through the means of BLOCKS blocks of (seconds, value): the slope in 1/s, and its 95 % interval."""
    size = len(points) / BLOCKS
    blocks = [points[int(n * size) : int((n + 1) * size)] for n in range(BLOCKS)]
    assert all(blocks), f"{len(points)} readings are too few"
    xs = [sum(x for x, _ in block) / len(block) for block in blocks]
    ys = [sum(y for _, y in block) / len(block) for block in blocks]
    mean_x, mean_y = sum(xs) / BLOCKS, sum(ys) / BLOCKS
    spread = sum((x - mean_x) ** 2 for x in xs)
    found = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    rest = sum((y - mean_y - found * (x - mean_x)) ** 2 for x, y in zip(xs, ys, strict=True))
    error = STUDENT_95 * (rest / (BLOCKS - 2) / spread) ** 0.5
    return found, found - error, found + error


class Soak:
    """One relay under half load. `wrong`: what clients saw that they may not, in words."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.rows: list[Row] = []
        self.wrong: list[str] = []
        self.clients = self.captures = 0
        self._open: set[asyncio.Task[None]] = set()
        self._chance = random.Random(0)

    async def run(self, seconds: float) -> None:
        began = time.monotonic()
        captured_at = began
        pause = 0.2
        used = self._cpu_seconds()
        while (now := time.monotonic()) < began + seconds:
            self._begin_client()
            await asyncio.sleep(pause)
            if not self.rows or now - began - self.rows[-1][0] >= 1.0:
                elapsed = now - began - (self.rows[-1][0] if self.rows else 0.0)
                before, used = used, self._cpu_seconds()
                share = (used - before) / max(elapsed, 0.1)
                pause = min(2.0, max(0.01, pause * (1.1 if share > HALF or len(self._open) > MOST_CLIENTS else 0.95)))
                await self._read(now - began)
            if now - captured_at >= CAPTURE_SECONDS:
                captured_at = now
                await asyncio.to_thread(self._capture)
        await asyncio.gather(*self._open)

    def _begin_client(self) -> None:
        kind = self._chance.choice(READERS if self._chance.random() < 0.8 else tuple(CLIENTS))
        streams = self._chance.random() < 0.8 or kind == "event_source"
        fault = self._chance.choice(tuple(FAULTS) if streams else ANSWER_FAULTS)
        self.clients += 1
        script = Script(fault, self.clients, self._chance.choice((1, 20, 100)), streams)
        task = asyncio.create_task(self._client(kind, script))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _client(self, kind: str, script: Script) -> None:
        # How late this process is, is not looked at here: a client's answer may always be cut, but never be wrong.
        mix = Mix(self.relay.address, script, random.Random(script.seed), ending=True)
        try:
            await CLIENTS[kind](mix)
        except Wrong as wrong:
            self.wrong.append(f"client {kind}, upstream {script}: {wrong}")
        except OSError:
            pass  # reset by the relay, as it may

    async def _read(self, seconds: float) -> None:
        descriptors, kept = self.relay.descriptors_open()
        metrics = await asyncio.to_thread(self.relay.metrics)
        tasks = sum(metrics.get("asyncio_tasks", {}).values())
        self.rows.append((seconds, self.relay.read_rss() / 1024, len(descriptors) + kept, tasks))

    def _capture(self) -> None:
        body = json.dumps({"kind": "objects"}).encode()
        request = urllib.request.Request(
            f"{self.relay.monitor}/debug/memory/captures", body, {"Content-Type": "application/json"}
        )
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=60) as answer:
            self.captures += answer.status == 202

    def _cpu_seconds(self) -> float:
        return self.relay.cpu_seconds()


def text_of(soak: Soak, seconds: float) -> str:
    """The table, and the readings as a plot."""
    rows = [row for row in soak.rows if row[0] >= WARM_UP * seconds]
    lines = [
        f"{datetime.datetime.now(datetime.UTC).date()}: {seconds:.0f} s, {soak.clients} clients, {soak.captures} captures;",
        f"load average at the end {os.getloadavg()[0]:.1f}; clients that saw what they may not: {len(soak.wrong)}.",
        "",
        "| | first and last reading | slope | 95 % interval | |",
        "|---|---|---|---|---|",
    ]
    for column, (name, unit) in enumerate(UNITS.items(), 1):
        found, low, high = (value * 3600 for value in slope([(row[0], row[column]) for row in rows]))
        verdict = "includes zero" if low <= 0 <= high else "falls" if high < 0 else "**grows**"
        ends = f"{rows[0][column]:,.0f}, {rows[-1][column]:,.0f}"
        lines.append(f"| {name} | {ends} | {found:,.0f} {unit} | {low:,.0f} .. {high:,.0f} | {verdict} |")
    return "\n".join((*lines, "", "```text", *_plot([(row[0], row[1] / 1024) for row in soak.rows]), "```"))


def _plot(points: list[tuple[float, float]], width: int = 90, height: int = 10) -> list[str]:
    """Resident memory in MiB over seconds, the greatest reading of each column."""
    most, last = max(y for _, y in points), points[-1][0]
    columns = [0.0] * width
    for x, y in points:
        place = min(width - 1, int(x / last * width))
        columns[place] = max(columns[place], y)
    lines = [
        f"{most * level / height:6.0f} MiB "
        + "".join("#" if y >= most * (level - 0.5) / height else " " for y in columns)
        for level in range(height, 0, -1)
    ]
    return [line.rstrip() for line in lines] + [f"{'':11}0 s{last:>{width - 5}.0f} s"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--write", type=Path, help="put the table into this document")
    options = parser.parse_args()
    with Surroundings.started() as surroundings:
        relay = Relay.start(surroundings)
        try:
            soak = Soak(relay)
            asyncio.run(soak.run(options.seconds))
        finally:
            relay.end()
    text = text_of(soak, options.seconds)
    print(text, *soak.wrong, sep="\n")
    if options.write:
        write(options.write, text, MARKS)
    return int(bool(soak.wrong))


if __name__ == "__main__":
    sys.exit(main())
