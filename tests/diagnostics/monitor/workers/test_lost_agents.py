"""A worker that lives on without its agent is told of, and one that is about to end is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diagnostics.monitor.workers import targets
from diagnostics.monitor.workers.targets import Targets


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as one:
        yield one
        one.kill()


def test_a_worker_whose_agent_has_gone_stays_and_is_read_from_outside(
    tmp_path: Path, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of an agent was told nowhere: the worker was gone with it, and nothing was wrong."""
    clock = Clock()
    monkeypatch.setattr(targets, "time", clock)
    found = Targets(tmp_path)
    agents = {process.pid: tmp_path / "agents" / f"{process.pid}.sock"}
    monkeypatch.setattr(found._registry, "agents", lambda: dict(agents))
    assert [(one.pid, one.socket is None) for one in found.workers()] == [(process.pid, False)]
    agents.clear()
    # It may be about to end, as every service that stops is for a moment.
    assert found.workers() == []
    clock.now += targets.LEAVING_SECONDS
    (lost,) = found.workers()
    assert (lost.pid, lost.name, lost.socket) == (process.pid, "0", None)
    process.kill()
    process.wait()
    assert found.workers() == []
