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
from collections.abc import Awaitable, Mapping
from pathlib import Path

from .instructions import LOG, control, on_both_cores, under_valgrind, warm
from .lockstep import Stream, Upstream
from .parts import Function, Spent, median, read, spent
from .processes import Started

FRAMES = Path(__file__).parents[1] / "frames"
# Nothing that is loaded here uses a real-time signal.
SWITCH = int(signal.SIGRTMIN) + 8
SWITCH_PATIENCE_SECONDS = 60.0
# From the client's connect to its first event; from the end marker to the answer's end, with what is done after it; from the
# client's close on.
OPENING, ENDING, CLOSING = "opening", "ending", "closing"
IDLE, IDLE_SECONDS = "idle", 3.0
STREAMS_BEFORE, STREAMS = 4, 7
# After this nothing of what came before is left to do.
SETTLE_SECONDS = 0.3
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
        int(re.search(r"Collected : (\d+)", _callgrind(folder, ["-m", "calls", str(calls)]))[1])
        for calls in (0, CALIBRATION_CALLS)
    )
    plain = (with_calls - without) / CALIBRATION_CALLS
    calls = 1000
    log = _callgrind(folder, [str(FRAMES / "run.py"), str(library), str(SWITCH), "calls", str(calls), str(SWITCH)])
    entered = [note.at for note in read(log.splitlines()) if note.function == "nothing"]
    return (entered[-1] - entered[0]) / (len(entered) - 1) - plain


def _callgrind(folder: Path, arguments: list[str]) -> str:
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
            names = await _run(process, upstream, port, log)
        with open(log, encoding="utf-8", errors="replace") as lines:
            found = spent(read(lines))
    times: dict[str, list[dict[Function, Spent]]] = {}
    for name, one in zip(names, found, strict=True):
        times.setdefault(name, []).append(one)
    (idle,) = times.pop(IDLE)
    return {name: median(each, idle, a_frame) for name, each in times.items()}


async def _run(process: Started, upstream: Upstream, port: int, log: Path) -> list[str]:
    """Do all that is noted, and tell what was done, in order."""
    names: list[str] = []

    async def noted(name: str, work: Awaitable[object]) -> None:
        await _switch(process, log)
        await work
        await asyncio.sleep(SETTLE_SECONDS)
        await _switch(process, log)
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


async def _switch(process: Started, log: Path) -> None:
    """Switch the notes on or off, and wait until it is done."""
    switches = _switches(log)
    os.kill(process.pid, SWITCH)
    deadline = asyncio.get_running_loop().time() + SWITCH_PATIENCE_SECONDS
    while _switches(log) == switches:
        if asyncio.get_running_loop().time() > deadline:
            raise process.failure("the notes of its frames cannot be switched on or off")
        await asyncio.sleep(0.05)


def _switches(log: Path) -> int:
    """How often they were switched so far."""
    with open(log, "rb") as lines:
        return sum(line.endswith((b"** on\n", b"** off\n")) for line in lines)
