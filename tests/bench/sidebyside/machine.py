"""The machine that the figures are of, in words."""

from __future__ import annotations

import datetime
import json
import os
import platform
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

BUSY = 0.7  # load average before anything has begun
HARNESS_LOAD = 3.0  # what the benchmark brings about itself
OTHER_WORK = (
    " **The machine had much other work**: memory holds, and CPU per event within a few tenths;"
    " nothing that goes by the clock does."
)


def raise_open_files() -> None:
    """Thousands of streams are thousands of sockets; what is started from here has the same limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def warn_if_busy() -> None:
    """Say so where the machine has other work: what is delivered and how late is then the machine's doing."""
    load = os.getloadavg()[0]
    if load > BUSY:
        print(
            f"the machine is busy (load average {load:.1f}): trust ratios of CPU per event, and nothing by the clock",
            file=sys.stderr,
        )


def conditions(rounds: int, spans: Mapping[str, int]) -> str:
    """One paragraph: processor, kernel, Python, how busy the machine was, and that traces did arrive."""
    named = [
        line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if line.startswith("model name")
    ]
    model = named[0].partition(":")[2].strip() if named else platform.machine()
    return (
        f"Measured on {datetime.datetime.now(datetime.UTC).date()}: {os.cpu_count()} cores ({model}), "
        f"Linux {platform.release()}, Python {platform.python_version()}; {rounds} interleaved rounds, medians and "
        f"[ranges]; load average at the end {os.getloadavg()[0]:.1f}. "
        f"Spans that arrived at the collector: {json.dumps(spans)}.{OTHER_WORK if os.getloadavg()[0] > HARNESS_LOAD else ''}"
    )
