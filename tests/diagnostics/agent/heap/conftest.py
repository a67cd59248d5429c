"""Programs that run with the sampled heap on, each in a process of its own; and the tables that they leave."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import diagnostics
from diagnostics.agent.heap import extension, layout
from diagnostics.analysis.heap import HeapTable, decode

ROOT = Path(diagnostics.__file__).parent.parent

Run = Callable[..., subprocess.CompletedProcess[str]]

HEAD = """
import atexit, gc, os, signal, sys, threading, time
from diagnostics.agent import heap

atexit.register(heap.settle)  # as the agent does

def begin():
    why = heap.begin() or heap.keep(os.environ["DIAGNOSTICS_DIR"])
    assert why is None, why
"""


@pytest.fixture(autouse=True)
def _can_be_had() -> None:
    why = layout.why_not()
    if why is not None:
        pytest.skip(f"the heap is not sampled here: {why}")
    if extension() is None:
        if os.environ.get("CI"):
            pytest.fail("the extension of the live heap is not built")
        pytest.skip("the extension of the live heap is not built: it takes a C compiler and Python's headers")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "dir"


@pytest.fixture
def run(root: Path) -> Run:
    """Runs a program to its end; it must succeed unless `code` says otherwise."""

    def run(
        program: str,
        *,
        python: str | Path = sys.executable,
        code: int = 0,
        mode: str = "on",
        rate: int = 16384,
        flags: tuple[str, ...] = (),
        **env: str,
    ) -> subprocess.CompletedProcess[str]:
        given = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DIAGNOSTICS_DIR": str(root),
            "DIAGNOSTICS_HEAP": mode, "DIAGNOSTICS_HEAP_RATE": str(rate), "PYTHONDONTWRITEBYTECODE": "1", **env,
        }  # fmt: skip
        done = subprocess.run(
            [python, *flags, "-c", HEAD + program],
            env=given,
            capture_output=True,
            encoding="utf-8",
            timeout=250,
            check=False,
        )
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}{done.stderr}"
        return done

    return run


@pytest.fixture
def tables(root: Path) -> Callable[[], dict[int, HeapTable]]:
    """What lies in the folder, by the process that wrote it."""

    def read() -> dict[int, HeapTable]:
        found = [decode(path.read_bytes()) for path in (root / "heap").glob("*.heap")]
        return {table.pid: table for table in found}

    return read


def alive(table: HeapTable, function: str) -> float:
    """Estimated bytes that are alive and were allocated in a function of this name or below it."""
    from diagnostics.analysis.heap import profile

    samples = profile(table).samples
    return sum(each.values[0] for each in samples if any(frame.function == function for frame in each.stack))
