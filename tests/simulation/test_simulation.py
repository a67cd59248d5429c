"""Some seeds of the simulation, where its environment is (`make simulate` makes it): what `make simulate` does with many."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEDS = (1, 2, 5, 13)


def test_bytes_are_within_their_bounds_after_every_step(tmp_path: Path) -> None:
    found = sorted(ROOT.glob(".simulation/*/bin/python"))
    if not found:
        pytest.skip("no environment of the simulation is here; `make simulate` makes it, with Python 3.12 or later")
    for seed in SEEDS:
        run = subprocess.run(
            [found[-1], "-m", "tests.simulation", "--seed", str(seed)],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        outcome = json.loads(run.stdout)
        assert outcome["steps"] > 1000
        assert outcome["largest"]["one stream"] > 0
