"""How long `diagnostics fleet status` takes to ask very many monitors.

    python tests/bench/bench_fleet.py [--monitors 100] [--processes 10] [--rounds 5]

A monitor here has several of the loopback's addresses, and each address is a target of its own, so that ten processes answer as
a hundred: all that the command does is the same, and what the monitors do is done by one machine where it would be by fifty.
Each has a service beside it. The command waits as long as it has to, since a monitor on a busy machine may be late. The first
round is not counted: monitors read their services for the first time then.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from sidebyside.processes import ROOT, free_port

TOKEN = "of-this-benchmark-alone"  # guards services that only sleep
START_SECONDS = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--monitors", type=int, default=100, help="targets (default: %(default)s)")
    parser.add_argument(
        "--processes", type=int, default=10, help="monitors that answer for them (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        ports = [free_port() for _ in range(arguments.processes)]
        targets = [f"127.0.1.{1 + n // len(ports)}:{ports[n % len(ports)]}" for n in range(arguments.monitors)]
        hosts = ",".join({target.partition(":")[0] for target in targets})
        env = {**os.environ, "PYTHONPATH": str(ROOT), "DIAGNOSTICS_TOKEN": TOKEN, "DIAGNOSTICS_ALLOWED_HOSTS": hosts}
        for port in ports:
            own = folder / str(port)
            own.mkdir()
            opened.enter_context(_monitor(port, own, env))
        for port in ports:
            _wait(f"http://127.0.1.1:{port}/debug/memory")
        took = []
        for number in range(arguments.rounds + 1):
            began = time.monotonic()
            before = os.times()
            asked = subprocess.run(
                [sys.executable, "-m", "diagnostics", "fleet", "--targets", ",".join(targets), "--timeout", "120", "status"],
                env=env, stdout=subprocess.PIPE, encoding="utf-8", check=False, timeout=300,
            )  # fmt: skip
            after = os.times()
            spent = after.children_user + after.children_system - before.children_user - before.children_system
            answered = sum(line.split()[0] in targets for line in asked.stdout.splitlines()[1:] if line.strip())
            if asked.returncode not in (0, 1) or answered < len(targets):
                raise SystemExit(f"fleet status ended with {asked.returncode}: {asked.stdout[-2000:]}")
            if number:
                took.append((time.monotonic() - began, spent))
    seconds, cpu = [one for one, _ in took], [one for _, one in took]
    print(f"{len(targets)} targets at {len(ports)} monitors, all of which answer. fleet status takes", end=" ")
    print(f"{statistics.median(seconds):.2f} s [{min(seconds):.2f} .. {max(seconds):.2f}],", end=" ")
    print(f"{statistics.median(cpu):.2f} s [{min(cpu):.2f} .. {max(cpu):.2f}] of them CPU time of the command")
    print(f"{os.cpu_count()} cores, load average at the end {os.getloadavg()[0]:.1f}")
    return 0


@contextlib.contextmanager
def _monitor(port: int, folder: Path, env: dict[str, str]) -> Iterator[None]:
    """A monitor on all addresses, and the service beside it."""
    service = [sys.executable, "-c", "import time; time.sleep(1e6)"]
    command = [sys.executable, "-m", "diagnostics", "run", "--listen", f"0.0.0.0:{port}", "--", *service]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, env={**env, "DIAGNOSTICS_DIR": str(folder)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def _wait(url: str) -> None:
    """Until the monitor there has its service."""
    until = time.monotonic() + START_SECONDS
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}", "Accept": "application/json"})
    while True:
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(request, timeout=60) as answer:
            if json.load(answer)["workers"]:
                return
        if time.monotonic() > until:
            raise SystemExit(f"no service at {url}")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
