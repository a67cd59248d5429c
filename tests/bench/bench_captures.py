"""What captures cost a service, measured on one, as a Markdown table.

    python tests/bench/bench_captures.py [--quick] [--only forks|windows|throughput|import|services ...]

The subject is a uvloop process whose streams are queues of small chunks, at about a fifth of a core, with a million
live blocks. It watches itself: a timer of one millisecond tells how long its loop stood still. Rounds with a capture
and rounds without alternate, and medians are shown with their ranges, so that a machine that slows down slows both.
What other work on the machine would decide is measured in CPU time: throughput as the CPU time of an event, against the
round beside it without a capture; the end of a window also as the time that it had a core for. Exit code 1 where a target
is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from diagnostics.agent.inject import HOOK_FOLDER  # noqa: E402
from diagnostics.analysis.cost import GIB, Load, Method, estimate  # noqa: E402
from diagnostics.protocol import MAX_REPLY_BYTES, frame, read_frame, request  # noqa: E402

MILLION = 1_000_000

SUBJECT = '''
import asyncio, json, sys, time
from pathlib import Path
import uvloop
from diagnostics.agent import lifecycle

kept, held = [], []
state = {"events": 0, "gap": 0.0}

async def stream(queue):
    while True:
        await queue.get()
        state["events"] += 1

async def load(queues, share):
    """Chunks through queues until a fifth of each hundredth of a second is used."""
    while True:
        ends = time.perf_counter() + 0.01 * share
        while time.perf_counter() < ends:
            for queue in queues:
                queue.put_nowait(bytes(64))
            await asyncio.sleep(0)
        await asyncio.sleep(0.01 * (1 - share))

async def watch():
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        state["gap"] = max(state["gap"], now - last)
        last = now

async def burst(count):
    queue, began = asyncio.Queue(), time.thread_time()
    async def take():
        for _ in range(count):
            await queue.get()
    taker = asyncio.ensure_future(take())
    for number in range(count):
        queue.put_nowait(bytes(64))
        if number % 50 == 0:
            await asyncio.sleep(0)
    await taker
    return (time.thread_time() - began) / count

async def hold(into, count):
    for _ in range(count // 1000):
        into.extend([object() for _ in range(1000)])
        await asyncio.sleep(0)

async def main():
    lifecycle.start(Path(sys.argv[1]))
    queues = [asyncio.Queue() for _ in range(20)]
    tasks = [asyncio.ensure_future(stream(queue)) for queue in queues]
    watcher = asyncio.ensure_future(watch())
    loader = None
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        op, number = line.split()
        answer = None
        if op == b"load":
            loader = asyncio.ensure_future(load(queues, float(number)))
        elif op == b"pause":
            loader.cancel()
        elif op == b"burst":
            answer = await burst(int(number))
        elif op == b"keep":
            await hold(kept, int(number))
        elif op == b"hold":
            await hold(held, int(number))
        elif op == b"drop":
            while held:
                del held[-10_000:]
                await asyncio.sleep(0)
        elif op == b"gap":
            answer, state["gap"] = state["gap"], 0.0
        elif op == b"facts":
            answer = {"events": state["events"], "cpu": time.process_time()}
        print(json.dumps(answer), flush=True)

uvloop.run(main())
'''


class Subject:
    """The process under test, and the conversation with its agent."""

    def __init__(self, process: subprocess.Popen[str], root: Path) -> None:
        self._process = process
        self._agent = root / "agents" / f"{process.pid}.sock"
        self.pid = process.pid

    def do(self, op: str, number: float = 0) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{op} {number}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def ask(self, op: str, **params: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(180)
            connection.connect(str(self._agent))
            connection.sendall(frame(request(op, **params)))
            reply = read_frame(connection, MAX_REPLY_BYTES)
        if "error" in reply:
            raise SystemExit(f"{op}: {reply['error']['message']}")
        return reply["result"]

    def rss(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def blocks(self) -> int:
        return int(self.ask("reading")["allocators"]["python_blocks"])

    def gap_ms(self) -> float:
        """The longest that the loop stood still since the last asking."""
        return 1000 * float(self.do("gap"))

    def cpu_per_event(self, seconds: float) -> float:
        first = self.do("facts")
        time.sleep(seconds)
        second = self.do("facts")
        return float((second["cpu"] - first["cpu"]) / max(1, second["events"] - first["events"]))


@contextmanager
def subject() -> Iterator[Subject]:
    with tempfile.TemporaryDirectory(prefix="hw-bench-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", SUBJECT, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            one = Subject(process, Path(folder))
            one.do("keep", MILLION)
            yield one
        finally:
            process.kill()
            process.communicate()


@dataclass(frozen=True)
class Row:
    """One line of the table: samples in the target's unit, and the bound that their median must keep, where there is one."""

    what: str
    samples: list[float]
    unit: str
    bound: float | None
    least: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def met(self) -> bool:
        if self.bound is None:
            return True
        return self.median >= self.bound if self.least else self.median <= self.bound

    def __str__(self) -> str:
        low, high = min(self.samples), max(self.samples)
        sign = "≥" if self.least else "≤"
        target = (
            "|"
            if self.bound is None
            else f"{sign} {self.bound:.3g} {self.unit} | {'met' if self.met else '**missed**'}"
        )
        return f"| {self.what} | {self.median:.3g} {self.unit} | {low:.3g} to {high:.3g} | {len(self.samples)} | {target} |"


def ratio_row(what: str, expected: float, measured: list[float]) -> Row:
    """How far an estimate is from what was measured: the larger over the smaller."""
    name = f"estimate of {what}: {expected:.3g}, measured {statistics.median(measured):.3g}"
    return Row(name, [max(expected, value) / max(1e-9, min(expected, value)) for value in measured], "times", 2.0)


def forks(one: Subject, rounds: int) -> Iterator[Row]:
    """The stall of a forked reading: what the loop saw, in rounds with and without a fork by turns."""
    one.do("load", 0.2)
    time.sleep(0.5)
    stalls, quiet, forked, cpu = [], [], [], []
    rss = one.rss()
    for _ in range(rounds):
        one.gap_ms()
        time.sleep(0.3)
        quiet.append(one.gap_ms())
        one.ask("tasks")
        stalls.append(one.gap_ms())
        told = one.ask("window.watch")["last_fork"]
        forked.append(1000 * told["fork_seconds"])
        cpu.append(1000 * told["fork_cpu_seconds"])
    bound = 15 + 25 * rss / GIB
    yield Row(f"loop stands still for a forked reading ({rss / 2**20:.0f} MiB)", stalls, "ms", None)
    yield Row("the same without one", quiet, "ms", None)
    yield Row("of it, the fork itself", forked, "ms", None)
    yield Row("of the fork, with a core for it", cpu, "ms", bound)
    expected = estimate(Method(census=False), Load(rss)).fork_ms
    yield ratio_row("the fork (ms with a core)", expected, cpu)
    one.do("pause")


def windows(one: Subject, rounds: int, folder: Path) -> Iterator[Row]:
    """Ending a window that traced a million blocks, what it took of memory, and its stack coverage."""
    methods = {
        "tracemalloc, 1 frame": Method(tracer="tracemalloc", seconds=10, frames=1, census=False),
        "memray, aggregated": Method(tracer="memray", seconds=10, forks=False),
    }
    gaps: dict[str, list[float]] = {name: [] for name in methods}
    cpu: dict[str, list[float]] = {name: [] for name in methods}
    endings: dict[str, list[float]] = {name: [] for name in methods}
    coverage: list[float] = []
    for number in range(rounds):
        for name, method in methods.items():
            path = folder / f"{number}.bin"
            _open(one, method, path)
            one.do("hold", MILLION)
            one.gap_ms()
            _close(one, method)
            time.sleep(0.05)
            gaps[name].append(one.gap_ms())
            told = one.ask("window.watch")
            endings[name].append(1000 * told["last_ending_seconds"])
            cpu[name].append(1000 * told["last_ending_cpu_seconds"])
            if method.tracer == "memray":
                coverage.append(_coverage(path))
            one.do("drop")
    for name, method in methods.items():
        yield Row(f"loop stands still when a window of a million blocks ends: {name}", gaps[name], "ms", None)
        yield Row(f"of it, with a core for it: {name}", cpu[name], "ms", 100)
        expected = estimate(method, Load(one.rss(), MILLION)).ending_ms
        yield ratio_row(f"that ending (ms with a core): {name}", expected, cpu[name])
    yield Row("memray: bytes with a Python stack", coverage, "%", 95, least=True)


def throughput(one: Subject, rounds: int, pause: float, folder: Path) -> Iterator[Row]:
    """The loop's CPU time for an event after a window, against before it; and within one. Rounds with and without alternate."""
    methods = {
        "tracemalloc, 1 frame": Method(tracer="tracemalloc", seconds=5, frames=1, census=False),
        "tracemalloc, 5 frames": Method(tracer="tracemalloc", seconds=5, frames=5, census=False),
        "memray, aggregated": Method(tracer="memray", seconds=5, forks=False),
    }
    after: dict[str, list[float]] = {name: [] for name in [*methods, "no capture"]}
    slower: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(rounds):
        for name in after:
            method = methods.get(name)
            before = _event_cpu(one)
            if method is not None:
                one.do("load", 0.05)
                untraced = one.cpu_per_event(0.7)
                _open(one, method, folder / f"t{number}.bin")
                slower[name].append(one.cpu_per_event(0.7) / untraced)
                _close(one, method)
                one.do("pause")
            time.sleep(pause)
            after[name].append(100 * before / _event_cpu(one))
    usual = after.pop("no capture")
    spread = f"{min(usual):.3g} to {max(usual):.3g}"
    for name, shares in after.items():
        # Against the round beside it without a capture: both met the same machine.
        paired = [100 * share / control for share, control in zip(shares, usual, strict=True)]
        yield Row(
            f"throughput {pause:g} s after a capture: {name} (without one {spread} %)", paired, "%", 97, least=True
        )
    for name, method in methods.items():
        yield ratio_row(f"the slowdown in a window (times): {name}", estimate(method, Load(0)).slowdown, slower[name])


def importing(rounds: int) -> Iterator[Row]:
    """What the agent adds: to a bare interpreter, and to a service that has uvicorn and FastAPI already; CPU time."""
    asked = (
        "import json, diagnostics.agent.operations.readings as o, diagnostics.agent.state as s\no.reading(s.State())"
    )
    bare, beside = "pass", "import fastapi, uvicorn.server"
    cases = {
        "importing the agent, bare interpreter": (bare, "", True),
        "the same with the first reading": (bare, asked, False),
        "importing the agent beside uvicorn and FastAPI": (beside, "", True),
        "the same beside them with the first reading": (beside, asked, True),
    }
    for name, (first, then, judged) in cases.items():
        program = (
            f"import time\n{first}\n"
            "def rss(): return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
            "memory, began = rss(), time.process_time()\n"
            f"import diagnostics.agent.lifecycle\n{then}\n"
            "print(1000 * (time.process_time() - began), (rss() - memory) / 2**20)"
        )
        told = _compiled_runs(program, rounds)
        yield Row(name, [row[0] for row in told], "ms", 30 if judged else None)
        yield Row("memory that this takes", [row[1] for row in told], "MiB", 2 if judged else None)

    # In a process that has imported nothing; memory that is no file's.
    own = "print(next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('RssAnon')) / 1024)"
    with tempfile.TemporaryDirectory() as root:
        hooked = _compiled_runs(own, rounds, PYTHONPATH=HOOK_FOLDER, DIAGNOSTICS_DIR=root)
    added = [one[0] - other[0] for one, other in zip(hooked, _compiled_runs(own, rounds), strict=True)]
    yield Row("memory that the hook of `diagnostics run` takes, bare interpreter", added, "MiB", None)


def _compiled_runs(program: str, rounds: int, **more: str) -> list[list[float]]:
    """The numbers that the program prints, once for each run, with compiled files in place as after an installation.

    more   variables of its environment
    """
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": compiled, **more}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        told = []
        for _ in range(rounds + 1):
            command = [sys.executable, "-c", program]
            done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", env=environment)
            told.append([float(word) for word in done.stdout.split()])
    return told[1:]  # the first one compiles


def _event_cpu(one: Subject) -> float:
    """CPU seconds of the loop's thread for an event: the least of nine bursts, in which others disturbed the caches least."""
    return min(float(one.do("burst", 20_000)) for _ in range(9))


def _open(one: Subject, method: Method, path: Path) -> None:
    if method.tracer == "memray":
        path.unlink(missing_ok=True)
        one.ask("memray.begin", path=str(path), seconds=120)
    else:
        one.ask("tracemalloc.begin", seconds=120, frames=method.frames)


def _close(one: Subject, method: Method) -> None:
    one.ask(f"{method.tracer}.finish")


def _coverage(path: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "diagnostics.monitor.captures.memray_file", str(path)], check=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return float(json.loads(done.stdout)["meta"]["coverage_percent"])


# What is judged; `services` only tells, since it depends on what else the machine does.
_PARTS = ("forks", "windows", "throughput", "import")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds; two or three minutes")
    parser.add_argument("--only", choices=(*_PARTS, "services"), action="append")
    arguments = parser.parse_args()
    asked, quick = arguments.only or _PARTS, arguments.quick
    if "services" in asked:
        from capture_load import table

        for line in table():
            print(line, flush=True)
        if set(asked) == {"services"}:
            return 0
    rounds = 3 if quick else 9
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        if set(asked) & {"forks", "windows", "throughput"}:
            with subject() as one:
                rows += forks(one, 3 * rounds) if "forks" in asked else ()
                rows += windows(one, rounds, Path(folder)) if "windows" in asked else ()
                rows += throughput(one, rounds, 1.0 if quick else 5.0, Path(folder)) if "throughput" in asked else ()
    if "import" in asked:
        rows += importing(rounds)
    load = os.getloadavg()[0]
    print(
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, uvloop, "
        f"load average {load:.1f}.\n"
    )
    print("| what | median | range | n | target | |\n|---|---|---|---|---|---|")
    for row in rows:
        print(row)
    judged = [row for row in rows if row.bound is not None]
    missed = [row for row in judged if not row.met]
    print(f"\n{len(judged) - len(missed)} of {len(judged)} targets met.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
