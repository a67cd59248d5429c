"""Where the relay's CPU time goes: py-spy on the relay under a load, with native frames.

    python tests/bench/profile_relay.py [--case NAME] [--seconds N] [--peer relay|bare|...] [--out DIR]

Prints the functions that had the core, with what each event cost them, and writes stacks in folded form and as a flame graph.
Waiting is left out: only the thread that serves, and only while it does not wait for events. py-spy stops the process for
each sample, so the relay is slower than it would be; shares are what it is for. Needs ptrace (root, or the same user
where the kernel allows it).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from sidebyside.loads import LOADS
from sidebyside.measure import measure, settle
from sidebyside.peers import peer_named
from sidebyside.processes import TRAFFIC_CORE, started
from sidebyside.profile import Profile, flame_graph
from sidebyside.traffic import traffic

SAMPLES_PER_SECOND = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="paced", choices=tuple(LOADS))
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--peer", default="relay")
    parser.add_argument("--out", type=Path, default=Path("report/profile"), metavar="DIR")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {TRAFFIC_CORE})
    usual = LOADS[arguments.case]
    # Long enough for py-spy to start and to finish.
    load = replace(usual, events=60_000 if not usual.pace else int((arguments.seconds + 12) * usual.pace))
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", f"{arguments.peer}-{arguments.case}")
    folded = arguments.out / f"{name}.folded"
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        traffic(Path(folder)) as running,
        peer_named(arguments.peer)(running, Path(folder), load.streams) as serving,
    ):
        settle(serving, running)
        cost = measure(serving, LOADS[arguments.case], running).cpu_us
        with started(running.load_command(serving.url, load), TRAFFIC_CORE) as clients:
            time.sleep(load.opening + 0.2)
            record(serving.pid, arguments.seconds, folded)
            clients.output()
    profile = Profile.read(folded)
    print(f"{arguments.peer}, {load.title}: {cost:.1f} us of CPU per event")
    print(profile.table(cost))
    print(f"\n{folded}\n{flame_graph(folded)}")
    return 0


def record(pid: int, seconds: int, to: Path) -> None:
    """py-spy's folded stacks, with threads' names."""
    command = [
        str(Path(sys.executable).parent / "py-spy"), "record", "--pid", str(pid), "--duration", str(seconds), "--native",
        "--threads", "--rate", str(SAMPLES_PER_SECOND), "--format", "raw", "--output", str(to),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SystemExit(f"py-spy: {done.stderr.strip() or done.stdout.strip()}")


if __name__ == "__main__":
    sys.exit(main())
