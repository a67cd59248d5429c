"""What a capture would cost a live process: judged by the time that it uses, not by a moment of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from diagnostics.analysis.cost import Method
from diagnostics.monitor.captures.cost.pace import Mark, busy_share
from diagnostics.monitor.captures.cost.quote import Quote, quote
from diagnostics.monitor.workers.targets import Targets

# Works for so many seconds of CPU, and then for no more.
BURST = """
import sys, time
print("begun", flush=True)
while time.process_time() < float(sys.argv[1]):
    pass
sys.stdin.read()
"""
FRAMES = Method(tracer="tracemalloc", seconds=5, frames=25, census=False)


def quoted(root: Path, cpu_seconds: float) -> tuple[Quote, float]:
    """The quote for a process that works for so long, and the seconds that it took."""
    command = [sys.executable, "-c", BURST, str(cpu_seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            targets = Targets(root)
            targets.watch(process.pid)
            began = time.monotonic()
            found = asyncio.run(quote(targets.workers()[0], FRAMES))
            return found, time.monotonic() - began
        finally:
            process.kill()


def test_one_burst_of_work_is_no_load(tmp_path: Path) -> None:
    found, _ = quoted(tmp_path, 0.15)
    assert found.load.cpu_share is not None
    assert (
        found.load.cpu_share < 0.3
    )  # of a third of a second it would be half; what the process began with counts as well


def test_a_process_that_goes_on_working_is_refused_after_a_second_look(tmp_path: Path) -> None:
    found, took = quoted(tmp_path, 60)
    assert took >= 2
    assert found.load.cpu_share is not None
    assert found.load.cpu_share > 0  # others may have the cores: it has no rest all the same
    assert found.refusal is not None
    assert "of a core" in found.refusal


def test_threads_that_share_the_gil_are_busy_together() -> None:
    first = Mark(10.0, None, None, busy={1: 0, 2: 5_000_000_000})
    second = Mark(12.0, None, None, busy={1: 800_000_000, 2: 6_100_000_000, 3: 60_000_000})
    assert busy_share(first, second) == 0.98
    assert busy_share(first, Mark(12.0, None, None, busy={})) is None
