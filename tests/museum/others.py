"""The same work under memray, tracemalloc and objgraph, used as their manuals say: do their first lines name the culprit?"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from ..services.environments import environment
from ..services.exchange import wait_until_ready
from ..services.running import STOP_SECONDS, Running, beside, running
from .limited import limited
from .named import Named
from .pace import paced
from .table import HERE, Side

TOOLS = ("tracemalloc", "objgraph", "memray")
_PACKAGES = ("memray==1.20.0", "objgraph==3.6.2")
_READ = """
import json, sys
from collections import Counter

import memray
held = Counter()
for record in memray.FileReader(sys.argv[1]).get_leaked_allocation_records(merge_threads=True):
    stack = record.stack_trace(max_stacks=1)
    held["%s %s:%d" % stack[0] if stack else "without a Python stack"] += record.size
print(json.dumps([f"{where}: {size} bytes" for where, size in held.most_common(3)]))
"""


@dataclass(frozen=True)
class Shown:
    """What one tool showed of one exhibit: its first lines, the culprit's place among them, and after how many seconds."""

    tool: str
    lines: tuple[str, ...]
    rank: int | None
    seconds: float | None


def shown(side: Side, tool: str, place: Path, folder: Path, seconds: float) -> Shown:
    """Work under one tool for `seconds`. Raises Failed where the service does not run under it."""
    site = next(environment("museum-tools", _PACKAGES, side.interpreter()).glob("lib/python*/site-packages"))
    out = folder / f"{tool}.out"
    python, *arguments = side.command
    command = (python, str(HERE / "others_run.py"), tool, str(site), str(out), *arguments)
    under = replace(side, command=command)
    with (
        beside(side, folder) as upstream,
        limited(under) as (started, _used),
        running(started, place, folder / tool, observed=False, upstream=upstream) as one,
    ):
        wait_until_ready(one)
        with paced(one, side.work, side.a_second):
            time.sleep(seconds)
        if tool == "memray":
            return _of_memray(one, side, out, seconds)
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
    for report in found:
        if (rank := Named(tuple(report["lines"])).rank(side.culprit)) is not None:
            return Shown(tool, tuple(report["lines"]), rank, report["seconds"])
    return Shown(tool, tuple(found[-1]["lines"]) if found else (), None, None)


def _of_memray(one: Running, side: Side, out: Path, seconds: float) -> Shown:
    one.signal("INT")
    with contextlib.suppress(subprocess.TimeoutExpired):
        one.process.wait(STOP_SECONDS)
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(out)], capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    lines = tuple(json.loads(done.stdout)) if done.returncode == 0 else (done.stderr.strip()[-300:],)
    rank = Named(lines).rank(side.culprit) if done.returncode == 0 else None
    return Shown("memray", lines, rank, seconds if rank is not None else None)
