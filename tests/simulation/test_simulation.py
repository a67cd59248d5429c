"""Some seeds of the simulation, where its environment is (`make simulate` makes it): what `make simulate` does with many."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEDS = (1, 2, 5, 13)


def test_bytes_are_within_their_bounds_after_every_step(tmp_path: Path) -> None:
    for seed in SEEDS:
        outcome = json.loads(simulated("--seed", str(seed)))
        assert outcome["steps"] > 1000
        assert outcome["largest"]["one stream"] > 0


def test_the_record_adds_up_and_goes_on_with_the_next_seed(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    for _ in range(2):
        said = simulated("--seeds", "3", "--jobs", "2", "--record", str(file))
    (entry,) = json.loads(file.read_text(encoding="utf-8"))
    assert entry["seeds"] == 6
    assert entry["steps"] > 6000
    assert entry["wrong"] == []
    assert "6 seeds, from 0 on" in said


def simulated(*arguments: str) -> str:
    """What the simulation says on standard output, in its own environment."""
    found = sorted(ROOT.glob(".simulation/*/bin/python"))
    if not found:
        pytest.skip("no environment of the simulation is here; `make simulate` makes it, with Python 3.12 or later")
    run = subprocess.run(
        [found[-1], "-m", "tests.simulation", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
