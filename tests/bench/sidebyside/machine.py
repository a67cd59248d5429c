"""The machine that the figures are of, in words."""

from __future__ import annotations

import datetime
import json
import os
import platform
import resource
from collections.abc import Mapping
from pathlib import Path


def raise_open_files() -> None:
    """Thousands of streams are thousands of sockets; what is started from here has the same limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def conditions(rounds: int, spans: Mapping[str, int]) -> str:
    """One paragraph: processor, kernel, Python, how busy the machine was, and that traces did arrive."""
    named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = named[0].partition(":")[2].strip() if named else platform.machine()
    return (
        f"Measured on {datetime.datetime.now(datetime.UTC).date()}: {os.cpu_count()} cores ({model}), "
        f"Linux {platform.release()}, Python {platform.python_version()}; {rounds} interleaved rounds, medians and "
        f"[ranges]; load average at the end {os.getloadavg()[0]:.1f}. "
        f"Spans that arrived at the collector: {json.dumps(spans)}."
    )
