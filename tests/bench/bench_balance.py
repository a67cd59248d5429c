"""What reading a balance costs: the kernel's part by size of the process, the agent's part by number of objects.

python tests/bench/bench_balance.py
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from diagnostics.agent.operations.readings import reading
from diagnostics.agent.state import State
from diagnostics.monitor.kernel.smaps import parse
from diagnostics.monitor.workers.balance import read_balance

TIMES = 9
# Holds `sys.argv[1]` MiB in blocks of 4,000 bytes and has `sys.argv[2]` threads, until its input ends.
SERVICE = """
import sys, threading, time
import fastapi, uvicorn
held = [bytes(4000) for _ in range(int(sys.argv[1]) * 250)]
for _ in range(int(sys.argv[2])):
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def milliseconds(call: Callable[[], object]) -> float:
    """The least of several calls: what it costs where nothing else runs."""
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - began))
    return min(taken)


def main() -> None:
    print("RSS MiB  threads  kernel ms  parsing ms  balance ms")
    for mebibytes, threads in ((0, 1), (250, 10), (1000, 40)):
        with subprocess.Popen(
            [sys.executable, "-c", SERVICE, str(mebibytes), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin
            assert process.stdout
            process.stdout.readline()
            smaps = Path(f"/proc/{process.pid}/smaps")
            text = smaps.read_bytes()
            rss = read_balance(process.pid, 0, None)["rss_bytes"] / 2**20
            kernel, parsing = milliseconds(smaps.read_bytes), milliseconds(lambda text=text: list(parse(text)))
            whole = milliseconds(lambda pid=process.pid: read_balance(pid, 0, None))
            print(f"{rss:7.0f}  {threads:7}  {kernel:9.1f}  {parsing:10.1f}  {whole:10.1f}")
            process.stdin.close()
    state = State()
    for count in (0, 1_000_000):
        held = [object() for _ in range(count)]
        print(f"the agent's reading with {len(held):,} objects more: {milliseconds(lambda: reading(state)):.2f} ms")


if __name__ == "__main__":
    main()
