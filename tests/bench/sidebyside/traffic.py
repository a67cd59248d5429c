"""The compiled traffic: an upstream that is also the traces' collector, and clients. Built once, told by command line."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .loads import Load
from .processes import TRAFFIC_CORE, started

SOURCE = Path(__file__).parents[1] / "traffic"
# Late by this much is missing: a relay that cannot keep up is not waited for.
GRACE_SECONDS = 3.0
# The longest that a burst may take: a slow peer's rate is known by then.
BURST_SECONDS = 10.0


class Traffic:
    """A running upstream, `base` its base URL without /v1, and the program that the clients are."""

    def __init__(self, program: str, base: str) -> None:
        self.program = program
        self.base = base
        self.upstream_url = f"{base}/v1"
        self.collector_url = f"{base}/otlp"

    def load_command(self, url: str, load: Load) -> list[str]:
        whole = ["-whole"] if load.whole else []
        if load.again:
            return [
                self.program, "again", "-url", url, "-streams", str(load.streams), "-events", str(load.events),
                "-seconds", str(load.again), *whole,
            ]  # fmt: skip
        return [
            self.program, "load", "-url", url, "-streams", str(load.streams), "-events", str(load.events),
            "-pace", str(load.pace), "-opening", str(load.opening),
            "-deadline", str(load.seconds + GRACE_SECONDS if load.pace else BURST_SECONDS),
            *whole,
        ]  # fmt: skip

    def run(self, url: str, load: Load) -> dict[str, Any]:
        """One load, to its end."""
        with started(self.load_command(url, load), TRAFFIC_CORE) as client:
            found: dict[str, Any] = json.loads(client.output())
            return found

    def spans(self) -> dict[str, int]:
        """How many spans each service has exported."""
        found: dict[str, int] = json.loads(self._get("/otlp/spans"))
        return found

    def upstream_cpu_seconds(self) -> float:
        return float(self._get("/cpu"))

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(self.base + path, timeout=10) as answer:
            text: str = answer.read().decode()
            return text


@contextlib.contextmanager
def traffic(folder: Path) -> Iterator[Traffic]:
    """Build it in `folder` and start the upstream."""
    if shutil.which("go") is None:
        raise SystemExit("the traffic is compiled with Go: apt-get install golang-go")
    program = folder / "traffic"
    env = {**os.environ, "GOFLAGS": "-mod=mod"}
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=SOURCE, env=env, check=True)
    with started([str(program), "upstream"], TRAFFIC_CORE, stdin=True) as upstream:
        yield Traffic(str(program), upstream.line("upstream "))
