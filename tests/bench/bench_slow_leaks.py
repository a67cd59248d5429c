"""How long it takes until a verdict names the line of a slow leak, and which step of the way takes the time.

    python tests/bench/bench_slow_leaks.py [--sizes 1,5,20] [--rate 20] [--minutes 25] [--port 23100] [--heap-rate 524288]

For each size a service of its own keeps so many KiB of each request, under `diagnostics run` with the live heap on. All run
at the same time, in real time, and need little of the machine. Shown are the seconds since the service began until

    sampled    what its line gained since the first look has an interval above zero
    shown      `status` shows it among the lines that grow
    alarm      the verdict says that memory grows
    told       the verdict tells the line
    accused    the line is the verdict's culprit
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
SERVICE = """
import os

kept = []
size = int(os.environ["LEAK_BYTES"])

def handle():
    kept.append([bytes(size // 4) for _ in range(4)])
    return b",".join(str(number).encode() for number in range(400))

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": handle()})
"""
FUNCTION = "handle"
STEPS = ("sampled", "shown", "alarm", "told", "accused")
POLL_SECONDS = 2.0


def asked(port: int, path: str) -> Any:
    """The answer's JSON; None while there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        return json.loads(body) if answer.status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()


class Service:
    """One service and what was seen of it: the seconds at which each step was reached first.

    size   bytes that each request leaves; port: of its monitor, its own is 50 more
    """

    def __init__(self, size: int, rate: float, port: int, heap_rate: int, folder: Path) -> None:
        self.size, self.port, self.steps, self.said = size, port, dict[str, float](), ""
        self._ended = threading.Event()
        self.log = folder / f"{size}.log"
        (folder / "service.py").write_text(SERVICE, encoding="utf-8")
        with open(self.log, "wb") as log:
            self.process = self._started(folder, log, heap_rate)
        self.began = time.monotonic()
        self._client = threading.Thread(target=self._ask, args=(1 / rate,))
        self._client.start()

    def _started(self, folder: Path, log: IO[bytes], heap_rate: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable, "-m", "diagnostics", "run", "--listen", f"127.0.0.1:{self.port}", "--",
                sys.executable, "-m", "uvicorn", "--app-dir", str(folder), "--port", str(self.port + 50),
                "--log-level", "warning", "service:app",
            ],
            env={
                **os.environ, "LEAK_BYTES": str(self.size), "PYTHONPATH": str(ROOT),
                "DIAGNOSTICS_DIR": str(folder / f"dir-{self.size}"),
                "DIAGNOSTICS_HEAP": "on", "DIAGNOSTICS_HEAP_RATE": str(heap_rate), "DIAGNOSTICS_LOOKS_PER_HOUR": "0",
            },
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _ask(self, apart: float) -> None:
        """One request after the other, so many seconds apart, from when the service listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port + 50, timeout=60)
        due = time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
                due += apart
            except (OSError, http.client.HTTPException):  # it does not listen yet
                connection.close()
                due = time.monotonic() + 0.5
        connection.close()

    def look(self) -> None:
        if self.process.poll() is not None:
            raise SystemExit(f"the service of {self.size} bytes has ended: {self.log.read_text(encoding='utf-8')}")
        now = time.monotonic() - self.began
        found = asked(self.port, "/debug/memory")
        workers = (found or {}).get("workers") or ()
        if not workers:
            return
        verdict = workers[0]["verdict"]
        lines = asked(self.port, "/debug/memory/lines?seconds=86400&limit=50") or {"rows": ()}
        mine = next((row for row in lines["rows"] if row["function"].startswith(FUNCTION)), None)
        line = verdict.get("line") or {}
        named = str(line.get("function", "")).startswith(FUNCTION)
        reached = {
            "sampled": mine is not None and mine["grown_bytes"]["low"] > 0,
            "shown": any(row["grows"] and row["function"].startswith(FUNCTION) for row in workers[0]["lines"]["rows"]),
            "alarm": bool(verdict["alarm"]),
            "told": named,
            "accused": named and verdict.get("culprit") == line["name"],
        }
        for step, is_reached in reached.items():
            if is_reached:
                self.steps.setdefault(step, now)
        self.said = f"{verdict['verdict']}, {verdict['confidence']}: {verdict['says']}"

    @property
    def is_done(self) -> bool:
        return "accused" in self.steps

    def end(self) -> None:
        self._ended.set()
        self._client.join()
        self.process.terminate()
        self.process.wait(timeout=60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,5,20", help="KiB that each request leaves, of each service")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--port", type=int, default=23100, help="of the first monitor; the others follow")
    parser.add_argument("--heap-rate", type=int, default=512 * 1024)
    arguments = parser.parse_args()
    sizes = [float(size) for size in arguments.sizes.split(",")]
    with tempfile.TemporaryDirectory(prefix="highwater-slow-") as folder:
        services = [
            Service(round(1024 * size), arguments.rate, arguments.port + place, arguments.heap_rate, Path(folder))
            for place, size in enumerate(sizes)
        ]
        try:
            ends = time.monotonic() + 60 * arguments.minutes
            while time.monotonic() < ends and not all(service.is_done for service in services):
                for service in services:
                    if not service.is_done:
                        service.look()
                time.sleep(POLL_SECONDS)
        finally:
            for service in services:
                service.end()
    load = ", ".join(f"{each:.0f}" for each in os.getloadavg())
    print(
        f"{arguments.rate:g} requests a second, a sample each {arguments.heap_rate:,} bytes; load average {load}; seconds\n"
    )
    print(f"| a request leaves | {' | '.join(STEPS)} |\n|---|{'---|' * len(STEPS)}")
    for service in services:
        cells = [
            f"{service.steps[step]:.0f}" if step in service.steps else f"not in {60 * arguments.minutes:.0f}"
            for step in STEPS
        ]
        print(f"| {service.size / 1024:g} KiB | {' | '.join(cells)} |")
    for service in services:
        print(f"\n{service.size / 1024:g} KiB: {service.said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
