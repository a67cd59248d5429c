"""What the sampled heap costs: user CPU of loops that allocate, without hooks, with hooks that do nothing, and with sampling.

    python tests/bench/bench_heap.py [--pairs 15] [--loops small,json] [--python PYTHON]
    python -m pip install --target .ddtrace ddtrace && python tests/bench/bench_heap.py --ddtrace .ddtrace

Each measurement is a fresh process that runs one loop; the kinds take turns, so that what else the machine does falls
on all of them. Shown is the median over turns of each kind's ratio to `bare` of the same turn, with quartiles. `empty`
samples at a rate that is never reached: what is left is the indirection. `ddtrace` is its memory profiler with its defaults,
from a folder of its own. The last column is what `on` adds to `bare` by what ddtrace adds in the same turn, both medians. The
loop `uvicorn` is a service that streams JSON to clients in a process of their own; of it the service's CPU time is taken.
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

LOOPS["uvicorn"] = """
import asyncio, json, socket, sys
import uvicorn

CLIENT = r'''
import asyncio, sys

async def ask(port):
    for _ in range(40):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        while await reader.read(65536):
            pass
        writer.close()

async def main():
    await asyncio.gather(*(ask(int(sys.argv[1])) for _ in range(8)))

asyncio.run(main())
'''

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for number in range(30):
        event = json.dumps({"id": number, "choices": [{"index": 0, "delta": {"content": "word " * 4}}]})
        await send({"type": "http.response.body", "body": f"data: {event}\\n\\n".encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b""})

async def serve():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, str(listening.getsockname()[1]), env={}
        )
        assert await client.wait() == 0
        server.should_exit = True
        await serving

def work():
    asyncio.run(serve())
"""

KINDS = {
    "bare": {},
    "empty": {"DIAGNOSTICS_HEAP": "on", "DIAGNOSTICS_HEAP_RATE": str(1 << 40)},
    "raw": {"DIAGNOSTICS_HEAP": "raw"},
    "on": {"DIAGNOSTICS_HEAP": "on"},
}
DDTRACE = "ddtrace"

CHILD = """
import os, resource, sys
if "DIAGNOSTICS_HEAP" in os.environ:
    from diagnostics.agent import heap
    why = heap.begin() or heap.keep(os.environ["DIAGNOSTICS_DIR"])
    assert why is None, why
if "BENCH_DDTRACE" in os.environ:
    from ddtrace.internal.datadog.profiling import ddup
    from ddtrace.profiling.collector.memalloc import MemoryCollector
    ddup.config(service="bench", env="bench", version="1")
    ddup.start()
    MemoryCollector().start()
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
    parser.add_argument("--ddtrace", type=Path, help="a folder that ddtrace was installed into")
    arguments = parser.parse_args()
    kinds = dict(KINDS)
    if arguments.ddtrace is not None:
        kinds[DDTRACE] = {"BENCH_DDTRACE": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{arguments.ddtrace.resolve()}"}
    print(f"{sys.implementation.name} {sys.version.split()[0]}, {arguments.pairs} turns; load {_load()}")
    columns = [*(kind for kind in kinds if kind != "bare"), "on / empty"]
    columns += ["by ddtrace's"] if DDTRACE in kinds else []
    print(f"{'loop':8}" + "".join(f"{column:>22}" for column in columns))
    with tempfile.TemporaryDirectory(prefix="highwater-heap-") as folder:
        for loop in arguments.loops.split(","):
            turns = []
            for turn in range(arguments.pairs):
                order = list(kinds) if turn % 2 else list(kinds)[::-1]
                turns.append({kind: measure(arguments.python, loop, kinds[kind], folder) for kind in order})
            to_bare = {kind: [turn[kind] / turn["bare"] for turn in turns] for kind in kinds if kind != "bare"}
            shown = [_quartiles(ratios) for ratios in to_bare.values()]
            shown.append(_quartiles([turn["on"] / turn["empty"] for turn in turns]))
            if DDTRACE in kinds:
                ours, theirs = (statistics.median(to_bare[kind]) - 1 for kind in ("on", DDTRACE))
                shown.append(f"{ours / theirs:.2f}" if theirs > 0 else "it adds nothing")
            print(f"{loop:8}" + "".join(f"{text:>22}" for text in shown), flush=True)
    print(f"load {_load()} at the end")
    return 0


def _load() -> str:
    return ", ".join(f"{each:.0f}" for each in os.getloadavg())


def _quartiles(ratios: list[float]) -> str:
    if len(ratios) < 2:
        return f"{ratios[0]:.3f}"
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f}-{high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
