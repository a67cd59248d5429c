"""Whether the sampled heap tells the truth: planted amounts within its intervals, and tables of processes that were killed;
and what memory it takes at a heap of 1 GiB.

    python tests/bench/bench_heap_truth.py [--cases 200] [--kills 100] [--churn 32] [--python PYTHON]

A case plants a known amount in a function of its own: objects of 100 bytes, buffers of 50 KiB, both, or twice as much of
which half is freed again. It counts as held where the truth lies within the interval that `diagnostics top` would show: when it
was planted, and again after an hour of churn has gone over it. That is an hour by volume: a service that answers 50 requests a
second allocates 17 to 30 GiB in an hour, if each takes 100 KiB (30 events of JSON by uvicorn, as in bench_heap_services.py) to
170 KiB (20 events through the relay). Half of the volume are small objects, half buffers; the last few thousand are alive.

A killed process allocates all the time; its table must be whole, and less than a second old. The memory is what the table
takes of the service's own, and what is resident of its file. Exit code 1 where a target is missed: 93 of 100 cases, all kills,
4 MiB.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

from diagnostics.analysis import heap
from diagnostics.analysis.views import top

ROOT = Path(__file__).parents[2]
KINDS = ("small", "buffers", "mixed", "freed again")
# So many cases are alive at the same time, a gibibyte or so.
TOGETHER = 40

PLANT = """
def {name}(draw, kind):
    kept, truth = [], 0
    target = draw.choice((4, 10, 30, 60)) << 20
    times = 2 if kind == "freed again" else 1
    while truth < times * target:
        size = 50 * 1024 if kind == "buffers" or (kind == "mixed" and draw.random() < 0.002) else 100
        one = bytes(size - 33) if size == 100 else bytes(size)
        kept.append(one)
        truth += sys.getsizeof(one)
    if kind == "freed again":
        del kept[::2]
        truth = sum(map(sys.getsizeof, kept))
    return kept, truth
"""


def plant(cases: int, seed: int, churn: float) -> int:
    """The child: prints for each case when it was looked at, its kind, the truth, and what the table says."""
    from diagnostics.agent import heap as sampled

    why = sampled.begin() or sampled.keep(os.environ["DIAGNOSTICS_DIR"])
    assert why is None, why
    draw = random.Random(seed)
    planted: dict[str, tuple[str, object, int]] = {}
    for case in range(cases):
        name, kind = f"plant_{case:03}", KINDS[case % len(KINDS)]
        names: dict[str, object] = {"sys": sys}
        exec(PLANT.format(name=name), names)
        made = names[name]
        assert callable(made)
        kept, truth = made(draw, kind)
        planted[name] = kind, kept, truth + sys.getsizeof(kept)
        if len(planted) == TOGETHER or case == cases - 1:
            del kept, made, names
            _look("planted", planted)
            _churn(round(churn * (1 << 30)), draw)
            _look("churned", planted)
            planted.clear()
    return 0


def _look(when: str, planted: dict[str, tuple[str, object, int]]) -> None:
    from diagnostics.agent import heap as sampled

    table = heap.decode(Path(str((sampled.report() or {})["file"])).read_bytes())
    assert table.dropped == 0
    rows = {row.frame.function: row for row in top(heap.profile(table)).rows}
    for name, (kind, _, truth) in planted.items():
        low, high = rows[name].interval or (0, 0) if name in rows else (0, 0)
        flat = rows[name].flat if name in rows else 0
        print(when, kind.replace(" ", "-"), truth, flat, low, high, flush=True)


def _churn(volume: int, draw: random.Random) -> None:
    """Allocate so many bytes, half of them in objects of 50 to 500 bytes, half in buffers of 1 to 200 KiB, and let them go."""
    small = [draw.randrange(50, 500) for _ in range(5_000)]
    large = [draw.randrange(1 << 10, 200 << 10) for _ in range(sum(small) // (100 << 10) + 1)]
    alive: deque[object] = deque(maxlen=3)
    done = 0
    while done < volume:
        alive.append(([bytes(size) for size in small], [bytes(size) for size in large]))
        done += sum(small) + sum(large)


def weigh() -> int:
    """The child: fills 1 GiB with blocks of 64 KiB and small ones, and prints what sampling takes, in bytes."""
    from diagnostics.agent import heap as sampled

    why = sampled.begin() or sampled.keep(os.environ["DIAGNOSTICS_DIR"])
    assert why is None, why
    kept: list[object] = [bytes(64 * 1024) for _ in range(15_360)]  # of zeros that nobody touches: most is not resident
    kept += [[str(number) * 20 for number in range(1000)] for _ in range(400)]
    told = sampled.report() or {}
    resident = 0
    with open("/proc/self/smaps", encoding="utf-8") as file:
        ours = False
        for line in file:
            if "-" in line.split(" ")[0]:
                ours = line.rstrip().endswith(".heap")
            elif ours and line.startswith("Rss:"):
                resident += int(line.split()[1]) * 1024
    print(told["private_bytes"], resident, told["blocks"])
    del kept
    return 0


def kill(python: str, folder: str, kills: int) -> tuple[int, float]:
    """How many tables were whole and fresh, and the age of the stalest in seconds."""
    program = (
        "import os\nfrom diagnostics.agent import heap\n"
        "assert (heap.begin() or heap.keep(os.environ['DIAGNOSTICS_DIR'])) is None\n"
        "print('ready', flush=True)\nkept = []\n"
        "while True:\n    kept.append([str(n) * 20 for n in range(20_000)])\n    kept = kept[-20:]\n"
    )
    good, stalest = 0, 0.0
    for _ in range(kills):
        process = subprocess.Popen([python, "-c", program], env=_environment(folder), stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            process.stdout.readline()
            time.sleep(random.uniform(0.3, 1.0))
            process.send_signal(signal.SIGKILL)
            process.wait()
        killed = time.time()
        (path,) = Path(folder, "heap").glob(f"*-{process.pid}.heap")
        table = heap.decode(path.read_bytes())
        stale = killed - table.updated
        stalest = max(stalest, stale)
        good += stale <= 1.0 and table.torn <= 1 and len(table.blocks) > 0
    return good, stalest


def _environment(folder: str) -> dict[str, str]:
    given = {"PYTHONPATH": str(ROOT), "DIAGNOSTICS_DIR": folder, "DIAGNOSTICS_HEAP": "on"}
    return {"PATH": os.environ["PATH"], **given}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument(
        "--churn", type=float, default=32.0, help="GiB that are allocated after each 40 cases (default: 32)"
    )
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--child", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--weigh", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.weigh:
        return weigh()
    if arguments.child is not None:
        return plant(arguments.cases, arguments.child, arguments.churn)
    with tempfile.TemporaryDirectory(prefix="highwater-heap-") as folder:
        command = [
            arguments.python,
            __file__,
            "--child",
            str(random.randrange(1 << 30)),
            "--cases",
            str(arguments.cases),
            "--churn",
            str(arguments.churn),
        ]
        lines = subprocess.run(
            command, env=_environment(folder), check=True, capture_output=True, encoding="utf-8"
        ).stdout
        rows = [line.split() for line in lines.splitlines()]
        missed = 0
        for when in ("planted", "churned"):
            for kind in ("all", *(each.replace(" ", "-") for each in KINDS)):
                chosen = [tuple(map(int, row[2:])) for row in rows if row[0] == when and kind in ("all", row[1])]
                held = sum(low <= truth <= high for truth, _, low, high in chosen)
                error = sum(estimate / truth - 1 for truth, estimate, _, _ in chosen) / max(1, len(chosen))
                missed += kind == "all" and held < 0.93 * len(chosen)
                print(f"{when} {kind:12} {held:4} of {len(chosen)} held, mean error {100 * error:+.1f} %", flush=True)
        if arguments.kills:
            good, stalest = kill(arguments.python, folder, arguments.kills)
            missed += good < arguments.kills
            print(
                f"killed       {good:4} of {arguments.kills} tables whole and fresh, the stalest {stalest:.2f} s",
                flush=True,
            )
        weighed = subprocess.run(
            [arguments.python, __file__, "--weigh"],
            env=_environment(folder), check=True, capture_output=True, encoding="utf-8",
        ).stdout  # fmt: skip
        private, resident, blocks = map(int, weighed.split())
        missed += private + resident > 4 << 20
        parts = f"{private:,} bytes of its own, {resident:,} of its file, {blocks:,} samples alive"
        print(f"memory       {(private + resident) / (1 << 20):.2f} MiB at 1 GiB: {parts}")
    print(f"load average {', '.join(f'{each:.0f}' for each in os.getloadavg())}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
