"""What the sampled heap costs: user CPU of loops that allocate, without hooks, with hooks that do nothing, and with sampling.

    python tests/bench/bench_heap.py [--pairs 15] [--loops small,json] [--python PYTHON]

Each measurement is a fresh process that runs one loop; the kinds take turns, so that what else the machine does falls
on all of them. Shown is the median over turns of each kind's ratio to `bare` of the same turn, with quartiles. `empty`
samples at a rate that is never reached: what is left is the indirection.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

LOOPS = {
    "small": """
def work():
    for _ in range(60):
        kept = [object() for _ in range(20_000)]
        texts = [str(n) for n in range(10_000)]
""",
    "json": """
import json
data = {"rows": [{"id": n, "name": "x" * 20, "tags": ["a", "b", str(n)]} for n in range(500)]}
def work():
    for _ in range(150):
        json.loads(json.dumps(data))
""",
    "queue": """
import asyncio
async def pump():
    queue = asyncio.Queue(100)
    async def put():
        for n in range(60_000):
            await queue.put({"n": n})
    async def get():
        for _ in range(60_000):
            await queue.get()
    await asyncio.gather(put(), get())
def work():
    asyncio.run(pump())
""",
    "large": """
part = b"x" * 1000
def work():
    for n in range(30_000):
        one = part * 40
        two = part * 20
""",
}

KINDS = {
    "bare": {},
    "empty": {"DIAGNOSTICS_HEAP": "on", "DIAGNOSTICS_HEAP_RATE": str(1 << 40)},
    "raw": {"DIAGNOSTICS_HEAP": "raw"},
    "on": {"DIAGNOSTICS_HEAP": "on"},
}

CHILD = """
import os, resource, sys
if "DIAGNOSTICS_HEAP" in os.environ:
    from diagnostics.agent import heap
    why = heap.begin() or heap.keep(os.environ["DIAGNOSTICS_DIR"])
    assert why is None, why
{loop}
def deep(n):
    return work() if n == 0 else deep(n - 1)
deep(2)
before = resource.getrusage(resource.RUSAGE_SELF)
deep(20)
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
"""


def measure(python: str, loop: str, env: dict[str, str], folder: str) -> float:
    done = subprocess.run(
        [python, "-c", CHILD.format(loop=LOOPS[loop])],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DIAGNOSTICS_DIR": folder, **env},
        check=True, capture_output=True, encoding="utf-8", timeout=600,
    )  # fmt: skip
    return float(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--loops", default=",".join(LOOPS))
    parser.add_argument("--python", default=sys.executable)
    arguments = parser.parse_args()
    print(f"{'loop':8}" + "".join(f"{kind:>22}" for kind in KINDS if kind != "bare") + f"{'on / empty':>22}")
    with tempfile.TemporaryDirectory(prefix="highwater-heap-") as folder:
        for loop in arguments.loops.split(","):
            turns = []
            for turn in range(arguments.pairs):
                order = list(KINDS) if turn % 2 else list(KINDS)[::-1]
                turns.append({kind: measure(arguments.python, loop, KINDS[kind], folder) for kind in order})
            shown = [_quartiles([turn[kind] / turn["bare"] for turn in turns]) for kind in KINDS if kind != "bare"]
            shown.append(_quartiles([turn["on"] / turn["empty"] for turn in turns]))
            print(f"{loop:8}" + "".join(f"{text:>22}" for text in shown), flush=True)
    return 0


def _quartiles(ratios: list[float]) -> str:
    if len(ratios) < 2:
        return f"{ratios[0]:.3f}"
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f}-{high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
