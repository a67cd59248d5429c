"""A window is open, and the service dies, is stopped, or loses its monitor: the window closes, and who asked is told."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from diagnostics.protocol import MAX_REPLY_BYTES, frame, read_frame, request

ROOT = Path(__file__).parents[4]
SERVICE = """
import asyncio, sys
from pathlib import Path
from diagnostics.agent import lifecycle

kept = []

async def main():
    lifecycle.start(Path(sys.argv[1]))
    while True:
        kept.append(bytearray(1000))
        await asyncio.sleep(0.01)

asyncio.run(main())
"""


@dataclass
class Beside:
    """A service and a monitor that is no parent of it."""

    service: Any
    monitor: Any
    root: Path
    url: str

    def window(self) -> str | None:
        """The window that the agent has open, asked of it and not of the monitor."""
        return self._ask("hello")["window"]  # type: ignore[no-any-return]

    def troubles(self) -> dict[str, Any]:
        """What went wrong in the agent, by its own account."""
        return self._ask("reading")["troubles"]  # type: ignore[no-any-return]

    def _ask(self, op: str) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(self.root / "agents" / f"{self.service.process.pid}.sock"))
            connection.sendall(frame(request(op)))
            return read_frame(connection, MAX_REPLY_BYTES)["result"]  # type: ignore[no-any-return]


@pytest.fixture
def beside(launch: Callable[..., Any], tmp_path: Path, http: Any, eventually: Any) -> Beside:
    root = tmp_path / "dir"
    (tmp_path / "service.py").write_text(SERVICE, encoding="utf-8")
    service = launch(sys.executable, tmp_path / "service.py", root)
    monitor = launch(sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0", "--dir", root)
    url = str(monitor.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory"))
    eventually(lambda: http(f"{url}/debug/memory").json()["workers"], 60)
    return Beside(service, monitor, root, url)


@pytest.fixture(params=["tracemalloc", "memray"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def begin(beside: Beside, http: Any, eventually: Any, kind: str, seconds: float) -> str:
    """The address of a capture whose window is open."""
    begun = http(f"{beside.url}/debug/memory/captures", "POST", {"kind": kind, "seconds": seconds, "force": True})
    assert begun.status == 202, begun.json()
    eventually(lambda: beside.window() == kind, 60)
    return f"{beside.url}/debug/memory/captures/{begun.json()['id']}"


def ended(address: str, http: Any, eventually: Any) -> Any:
    return eventually(lambda: (found := http(address).json())["state"] not in ("pending", "running") and found, 90)


def test_a_service_that_dies_ends_its_capture_with_that_reason(
    beside: Beside, http: Any, eventually: Any, kind: str
) -> None:
    address = begin(beside, http, eventually, kind, 120)
    beside.service.process.kill()
    beside.service.process.wait()
    capture = ended(address, http, eventually)
    assert (capture["state"], capture["error"]["code"]) == ("failed", "agent_gone")
    assert capture["error"]["remedy"]


def test_a_service_that_is_stopped_ends_its_capture_and_closes_the_window_when_it_goes_on(
    beside: Beside, http: Any, eventually: Any, kind: str
) -> None:
    address = begin(beside, http, eventually, kind, 120)
    os.kill(beside.service.process.pid, signal.SIGSTOP)
    capture = ended(address, http, eventually)
    assert capture["state"] == "failed"
    assert "was stopped in the middle of the window" in capture["error"]["message"]
    os.kill(beside.service.process.pid, signal.SIGCONT)
    eventually(lambda: beside.window() is None, 60)


def test_a_window_that_lost_its_monitor_is_closed_by_the_agent_which_says_so(
    beside: Beside, http: Any, eventually: Any, kind: str
) -> None:
    begin(beside, http, eventually, kind, 1)
    beside.monitor.process.kill()
    beside.monitor.process.wait()
    eventually(lambda: beside.window() is None, 90)
    told = beside.troubles()
    assert told["last"] == f"closed a {kind} window that its monitor had left open"
