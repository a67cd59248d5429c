"""What the agent's import adds to a service: no module that the service may do without and that costs milliseconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# Each is 2 to 6 ms and 0.3 to 1.5 MiB in a bare interpreter: asyncio and logging are the service's choice, the others'
# work is done by hand in the agent's files.
HEAVY = {
    "asyncio", "contextlib", "ctypes", "dataclasses", "inspect", "json", "logging", "pathlib", "pickle", "re",
    "subprocess", "tempfile", "traceback", "typing", "urllib.parse",
}  # fmt: skip
# What the first question brings: its answer is JSON, and pymalloc's statistics are read through ctypes.
ASKED = {"contextlib", "ctypes", "json", "re"}

PROGRAM = """
import sys
before = set(sys.modules)
import diagnostics.agent.lifecycle as lifecycle
started = set(sys.modules) - before
from diagnostics.agent.operations import perform
from diagnostics.agent.state import State
from diagnostics.protocol import frame
frame(perform(State(), "sample", {}))
frame(perform(State(), "reading", {}))
asked = set(sys.modules) - before
import json
print(json.dumps([sorted(started), sorted(asked)]))
"""


def test_neither_the_start_nor_a_reading_brings_a_heavy_module() -> None:
    root = Path(__file__).parents[3]
    # -S: without the editable install's own hooks, which import some of them; the packages are found from the folder.
    done = subprocess.run([sys.executable, "-S", "-c", PROGRAM], cwd=root, check=True, capture_output=True, timeout=250)
    started, asked = (set(names) for names in json.loads(done.stdout))
    assert "diagnostics.agent.endpoint" in started
    assert not started & HEAVY
    assert "diagnostics.agent.servers" in asked - started
    assert not asked & (HEAVY - ASKED)
