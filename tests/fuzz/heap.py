"""Torments the sampled heap: threads, forks, blocks that grow and shrink, tracers on and off above and below, hooks in and out.

    python -m tests.fuzz.heap --seconds 600 [--asan] [--python PYTHON] [--seed N]

One child process after the other, each a few seconds of one seed; a child that ends otherwise than it should ends the
run, with its seed. In each the extension's table is compared with what the child itself knows to be alive: a block that
is lost, or kept after it was freed, is a failure like a crash. --asan builds the extension with AddressSanitizer into a
folder of its own, and runs with that.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = Path("diagnostics/agent/heap")
_CHILD_SECONDS = 4.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="this one alone")
    parser.add_argument("--asan", action="store_true")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--child", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        return torment(arguments.child)
    with tempfile.TemporaryDirectory(prefix="highwater-heap-") as folder:
        root = _with_asan(Path(folder)) if arguments.asan else ROOT
        until = time.monotonic() + arguments.seconds
        seed = random.randrange(1 << 30) if arguments.seed is None else arguments.seed
        done = 0
        while True:
            _one(arguments.python, root, seed, Path(folder), asan=arguments.asan)
            done += 1
            seed += 1
            if arguments.seed is not None or time.monotonic() > until:
                print(f"{done} processes, none crashed, no block was lost")
                return 0


def _with_asan(folder: Path) -> Path:
    shutil.copytree(ROOT / "diagnostics", folder / "diagnostics", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    native = folder / "diagnostics/agent/native/live"
    command = [
        "gcc", "-O1", "-g", "-fsanitize=address", "-fno-omit-frame-pointer", "-std=gnu11", "-fPIC", "-shared",
        "-DPy_LIMITED_API=0x030B0000", f"-I{sysconfig.get_path('include')}", "-o", str(folder / PACKAGE / "_live.abi3.so"),
        *map(str, sorted(native.glob("*.c"))), "-lm", "-ldl", "-pthread",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return folder


def _one(python: str, root: Path, seed: int, folder: Path, *, asan: bool) -> None:
    env = {
        **os.environ, "PYTHONPATH": str(root), "DIAGNOSTICS_DIR": str(folder / "dir"), "PYTHONFAULTHANDLER": "1",
        "DIAGNOSTICS_HEAP": "raw" if seed % 5 == 0 else "on",
        "DIAGNOSTICS_HEAP_RATE": str(random.Random(seed).choice((1024, 8192, 524288))),
    }  # fmt: skip
    if asan:
        found = subprocess.run(
            ["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, encoding="utf-8"
        )
        # Leaks are the interpreter's own: it does not free everything at its end.
        env |= {"LD_PRELOAD": found.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1"}
    command = [python, "-W", "ignore", str(Path(__file__).absolute()), "--child", str(seed)]
    done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", timeout=600, check=False)
    if done.returncode:
        print(f"seed {seed}, mode {env['DIAGNOSTICS_HEAP']}: ended with {done.returncode}\n{done.stdout}{done.stderr}")
        raise SystemExit(1)


def torment(seed: int) -> int:
    """The child."""
    import faulthandler
    import gc
    import threading
    import tracemalloc

    from diagnostics.agent import heap
    from diagnostics.analysis.heap import decode

    faulthandler.enable()
    draw = random.Random(seed)
    root = os.environ["DIAGNOSTICS_DIR"]
    if draw.random() < 0.3:
        tracemalloc.start(draw.randrange(1, 5))
    why = heap.begin() or heap.keep(root)
    assert why is None, why
    until = time.monotonic() + _CHILD_SECONDS

    def work(mine: random.Random) -> None:
        held: dict[int, object] = {}
        while time.monotonic() < until:
            key, act = mine.randrange(300), mine.random()
            if act < 0.3:
                held[key] = bytearray(mine.choice((1, 100, 511, 513, 4000, 70_000, 400_000)))
            elif act < 0.5:
                held[key] = [str(n) for n in range(mine.randrange(200))]
            elif act < 0.7:
                one = held.get(key)
                if isinstance(one, bytearray):
                    one += b"x" * mine.randrange(1, 5000)
                    if len(one) > 2_000_000:
                        del one[1000:]
                elif isinstance(one, list):
                    one.extend(one[: mine.randrange(50)])
            else:
                held.pop(key, None)
            if act > 0.999:
                exec(f"def f_{key}(): return [object() for _ in range({key})]\nf_{key}()")  # code that is freed again

    threads = [threading.Thread(target=work, args=(random.Random(seed * 7 + n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    while time.monotonic() < until:
        act = draw.randrange(8)
        if act == 0:
            pid = os.fork()
            if pid == 0:
                heap.keep(root)
                kept = [str(n) * 9 for n in range(3000)]
                del kept[::2]
                os._exit(0 if heap.report() else 1)
            assert os.waitpid(pid, 0)[1] == 0
        elif act == 1 and not tracemalloc.is_tracing():
            tracemalloc.start(2)
        elif act == 2 and tracemalloc.is_tracing():
            tracemalloc.stop()
        elif act == 3:
            gc.collect()
        elif act == 4:
            told = heap.report()
            assert told is not None
            if told["file"]:
                with open(told["file"], "rb") as file:
                    decode(file.read())
        elif act == 5 and draw.random() < 0.05:
            heap.end()
            heap.begin()
            heap.keep(root)
        else:
            time.sleep(0.01)
    for thread in threads:
        thread.join()
    _compare()
    heap.settle()
    return 0


def _compare() -> None:
    """What is planted now must all be found, and gone when it is let go: of blocks a hundred times the rate each is taken."""
    import tracemalloc

    from diagnostics.agent import heap
    from diagnostics.analysis.heap import decode

    told = heap.report()
    if told is None or told["mode"] == "off" or told["lost"] or told["file"] is None:
        return
    dropped = told["dropped"]

    def planted() -> int:
        with open(str(told["file"]), "rb") as file:
            table = decode(file.read())
        sites = {at for at, site in enumerate(table.sites) if site and any(f.function == "_plant" for f in site.stack)}
        return sum(site in sites and size > 100 * told["rate_bytes"] for site, size, _, _ in table.blocks)

    kept = _plant(200 * told["rate_bytes"] if told["rate_bytes"] < 100_000 else 60_000_000)
    now = heap.report() or {}
    assert planted() == len(kept) or now["dropped"] > dropped, (planted(), now)
    kept.clear()
    assert planted() == 0, planted()
    if tracemalloc.is_tracing():
        tracemalloc.stop()


def _plant(size: int) -> list[bytearray]:
    kept: list[bytearray] = []
    while len(kept) < 10:
        kept += [bytearray(size)]
    return kept


if __name__ == "__main__":
    sys.exit(main())
