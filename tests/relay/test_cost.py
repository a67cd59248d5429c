"""What an event and a stream cost the relay, in instructions, against a pass-through without features in the same run.

Instructions, counted by valgrind, are the same on every machine to half a per cent, so the bounds can be close: fifteen per
cent above the counts when they were set. A change that makes the path faster lowers them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = Path(__file__).parents[1] / "bench/count_instructions.py"
# One event a read, as a chat's come; sixty in 16 KiB, where a slow client let them gather; and all that is done once a stream.
MOST_TO_BARE = {"one by one": 0.9, "in bursts": 4.1, "a stream": 2.9}


@pytest.mark.needs("valgrind", "valgrind")
@pytest.mark.timeout(1300)
@pytest.mark.long
def test_events_and_streams_cost_no_more_instructions_than_they_did(tmp_path: Path) -> None:
    counted = tmp_path / "counted.json"
    done = subprocess.run(
        [sys.executable, str(COUNT), "--no-parts", "--json", str(counted)],
        capture_output=True,
        encoding="utf-8",
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(counted.read_text(encoding="utf-8"))
    ratios = {shape: found["relay"][shape] / found["bare"][shape] for shape in MOST_TO_BARE}
    # Half of it and less would be no relay that looks at what it passes on.
    assert all(ratio > 0.5 for ratio in ratios.values()), ratios
    too_much = {shape: ratio for shape, ratio in ratios.items() if ratio > MOST_TO_BARE[shape]}
    assert not too_much, f"to bare: {too_much}, at most {MOST_TO_BARE}; see tests/bench/count_instructions.py"
