"""Instructions and Python frames of opening, ending and closing a stream, by part of the service; counted by callgrind."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from .instructions import LOG, control, on_both_cores, under_valgrind, warm
from .lockstep import PATIENCE_SECONDS, Stream, Upstream
from .parts import Function, Spent, median, read, spent
from .processes import Started

FRAMES = Path(__file__).parents[1] / "frames"
# Nothing that is loaded here uses a real-time signal.
SWITCH = int(signal.SIGRTMIN) + 8
SWITCHED = (b"** on", b"** off")
# From the client's connect to its first event; from the end marker to the answer's end, with what is done after it; from the
# client's close on.
OPENING, ENDING, CLOSING = "opening", "ending", "closing"
IDLE, IDLE_SECONDS = "idle", 3.0
STREAMS_BEFORE, STREAMS = 4, 7
# What is left to do when a stream has ended is done in the next turns of the loop, at most one step in each. Time would say
# nothing on a busy machine; uvicorn's tick, ten a second, is a turn of its own.
TICK, TURNS = b"\tServer.on_tick", 12
CALIBRATION_CALLS = 100_000


async def noted_all(
    checkouts: Mapping[str, Path], settings: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, Spent]]:
    """What a stream of each peer takes in each phase: the median of STREAMS."""
    with tempfile.TemporaryDirectory(prefix="frames-") as folder:
        library = Path(folder) / "frames.so"
        compile_frames(library)
        a_frame = _a_frame(library, Path(folder))

        async def count(peer: str, checkout: Path, core: int) -> dict[str, Spent]:
            return await _noted(peer, checkout, core, settings.get(peer, {}), library, a_frame)

        return await on_both_cores(count, checkouts)


def compile_frames(library: Path) -> None:
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    include = f"-I{sysconfig.get_paths()['include']}"
    sources = str(FRAMES / "frames.c")
    subprocess.run([*compiler, "-O2", "-Wall", "-fPIC", "-shared", include, sources, "-o", str(library)], check=True)


def _a_frame(library: Path, folder: Path) -> float:
    """Instructions that the note of a frame adds: the cost of a call that does nothing, noted and not."""
    without, with_calls = (
        int(re.search(r"Collected : (\d+)", callgrind(folder, ["-m", "calls", str(calls)]))[1])
        for calls in (0, CALIBRATION_CALLS)
    )
    plain = (with_calls - without) / CALIBRATION_CALLS
    calls = 1000
    log = callgrind(folder, [str(FRAMES / "run.py"), str(library), str(SWITCH), "calls", str(calls), str(SWITCH)])
    entered = [note.at for note in read(log.splitlines()) if note.function == "nothing"]
    return (entered[-1] - entered[0]) / (len(entered) - 1) - plain


def callgrind(folder: Path, arguments: list[str]) -> str:
    log = folder / "calls.log"
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--log-file={log}", sys.executable]
    env = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(FRAMES)}
    subprocess.run([*command, *arguments], check=True, env=env)
    return log.read_text(encoding="utf-8")


async def _noted(
    peer: str, checkout: Path, core: int, settings: Mapping[str, str], library: Path, a_frame: float
) -> dict[str, Spent]:
    def run(command: list[str]) -> list[str]:
        python, module_flag, *rest = command
        assert module_flag == "-m"
        return [python, str(FRAMES / "run.py"), str(library), str(SWITCH), *rest]

    with tempfile.TemporaryDirectory(prefix="frames-") as folder:
        log = Path(folder) / LOG
        async with under_valgrind(peer, checkout, core, settings, Path(folder), run) as (process, upstream, port):
            names = await _run(process, upstream, port, _Log(log, process))
        with open(log, encoding="utf-8", errors="replace") as lines:
            found = spent(read(lines))
    times: dict[str, list[dict[Function, Spent]]] = {}
    for name, one in zip(names, found, strict=True):
        times.setdefault(name, []).append(one)
    (idle,) = times.pop(IDLE)
    return {name: median(each, idle, a_frame) for name, each in times.items()}


async def _run(process: Started, upstream: Upstream, port: int, log: _Log) -> list[str]:
    """Do all that is noted, and tell what was done, in order."""
    names: list[str] = []

    async def noted(name: str, work: Awaitable[object]) -> None:
        await log.switch()
        await work
        await log.turns()
        await log.switch()
        names.append(name)

    async def opened() -> None:
        nonlocal stream
        stream = await upstream.open(port)
        await stream.step(1)

    stream: Stream
    others = await warm(upstream, port)
    for _ in range(STREAMS_BEFORE):
        await opened()
        await stream.finish()
    await control(process, "--instr=on")
    await noted(IDLE, asyncio.sleep(IDLE_SECONDS))
    for _ in range(STREAMS):
        await noted(OPENING, opened())
        await noted(ENDING, stream.end())
        await noted(CLOSING, stream.closed())
    for other in others:
        other.client_writer.close()
    return names


class _Log:
    """Valgrind's log, as far as it is written: how often the notes were switched, and how often the server ticked."""

    def __init__(self, path: Path, process: Started) -> None:
        self._path = path
        self._process = process
        self._read = 0
        self._switches = self._ticks = 0

    async def switch(self) -> None:
        """Switch the notes on or off, and wait until it is done."""
        self._look()
        switches = self._switches
        os.kill(self._process.pid, SWITCH)
        await self._until(lambda: self._switches > switches, "the notes of its frames cannot be switched on or off")

    async def turns(self) -> None:
        """Wait for some turns of the process's loop. It is noting."""
        self._look()
        enough = self._ticks + TURNS
        await self._until(lambda: self._ticks >= enough, "its loop does not turn")

    async def _until(self, done: Callable[[], bool], problem: str) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while not done():
            if asyncio.get_running_loop().time() > deadline:
                raise self._process.failure(problem)
            await asyncio.sleep(0.05)
            self._look()

    def _look(self) -> None:
        with open(self._path, "rb") as log:
            log.seek(self._read)
            lines, _, rest = log.read().rpartition(b"\n")
            self._read = log.tell() - len(rest)
        for line in lines.split(b"\n"):
            self._switches += line.endswith(SWITCHED)
            self._ticks += line.endswith(TICK)
