"""Streams of servers that know nothing of us, seen through the servers' own objects by `diagnostics run`.

If one of these tests fails after a server was updated, what moved is named in the message: `unknown` says it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
APPS = Path(__file__).with_name("streaming")
PYTHON = sys.executable


@dataclass(frozen=True)
class Case:
    """A server with an app that has /stream/{user}, /flood, /slow and /socket.

    route     what /stream/anna is counted under
    blind     whether the server does not tell what its transports hold, nor whether a response has begun
    since     what a stream's age counts from
    """

    server: str
    command: tuple[str, ...]
    route: str
    since: str = "the request"
    blind: bool = False
    websockets: bool = True


GUNICORN = (PYTHON, "-m", "gunicorn", "--bind", "127.0.0.1:{port}")
CASES = {
    "aiohttp": Case("aiohttp", (PYTHON, "aiohttp_app.py", "{port}"), "/stream/{user}", "first seen by the agent"),
    "gunicorn-aiohttp": Case(
        "aiohttp", (*GUNICORN, "-k", "aiohttp.GunicornWebWorker", "aiohttp_app:app"), "/stream/{user}",
        "first seen by the agent",
    ),
    "quart-hypercorn": Case(
        "hypercorn", (PYTHON, "-m", "hypercorn", "quart_app:app", "--bind", "127.0.0.1:{port}"), "/stream/<user>"
    ),
    "litestar-hypercorn-uvloop": Case(
        "hypercorn",
        (PYTHON, "-m", "hypercorn", "litestar_app:app", "-k", "uvloop", "--bind", "127.0.0.1:{port}"),
        "/stream/{user}",
    ),
    "quart-uvicorn": Case(
        "uvicorn", (PYTHON, "-m", "uvicorn", "quart_app:app", "--port", "{port}"), "/stream/<user>",
        "first seen by the agent",
    ),
    "litestar-uvicorn": Case(
        "uvicorn", (PYTHON, "-m", "uvicorn", "litestar_app:app", "--port", "{port}"), "/stream/{user}",
        "first seen by the agent",
    ),
    "litestar-granian": Case(
        "granian", (PYTHON, "-m", "granian", "--interface", "asgi", "litestar_app:app", "--port", "{port}"),
        "/stream/{user}", "first seen by the agent", blind=True,
    ),
    "quart-granian": Case(
        "granian", (PYTHON, "-m", "granian", "--interface", "asgi", "quart_app:app", "--port", "{port}"),
        "/stream/<user>", "first seen by the agent", blind=True,
    ),
    "sanic": Case(
        "sanic", ("{sanic}", "-m", "sanic", "sanic_app:app", "--host", "127.0.0.1", "--port", "{port}"),
        "/stream/<user:str>",
    ),
    "sanic-single-process": Case(
        "sanic",
        ("{sanic}", "-m", "sanic", "sanic_app:app", "--host", "127.0.0.1", "--port", "{port}", "--single-process"),
        "/stream/<user:str>",
    ),
    "tornado": Case("tornado", (PYTHON, "tornado_app.py", "{port}"), "/stream/(?P<user>[^/]+)"),
}  # fmt: skip


class Run:
    """A service under `diagnostics run`, with one worker that answers."""

    def __init__(self, http: Any, eventually: Any, monitor: str, port: int) -> None:
        self.http, self.eventually, self.monitor, self.port = http, eventually, monitor, port

    def worker(self) -> dict[str, Any]:
        workers = self.http(f"{self.monitor}/debug/memory").json()["workers"]
        return workers[0] if len(workers) == 1 and workers[0]["state"] == "answering" else {}

    def connections(self) -> dict[str, Any]:
        found: dict[str, Any] = self.worker().get("connections", {})
        return found

    def streams(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http(f"{self.monitor}/debug/memory/streams").json()["streams"]
        return found

    def stream(self, path: str, until: Callable[[dict[str, Any]], Any] = bool) -> dict[str, Any]:
        """The row of the stream with that path, once there is one that passes `until`."""

        def look() -> Any:
            return next((row for row in self.streams() if row["path"] == path and until(row)), None)

        found: dict[str, Any] = self.eventually(look, patience=30, what=f"a stream of {path}")
        return found

    def metric(self, name: str, **labels: str) -> float | None:
        line = name + "{" + ",".join(f'{key}="{value}"' for key, value in sorted(labels.items())) + "} "
        for found in self.http(f"{self.monitor}/metrics").body.decode().splitlines():
            if found.startswith(line):
                return float(found.removeprefix(line))
        return None

    @contextlib.contextmanager
    def get(self, path: str, read: bool = True, headers: str = "") -> Iterator[socket.socket]:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        with client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
            if read:
                assert client.recv(1)
            yield client


@pytest.fixture(scope="session")
def sanic() -> str:
    """Python of the environment that Sanic has for itself: it asks for an older multidict than aiohttp."""
    with open(ROOT / ".sanic.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests may run in several processes
        made = subprocess.run(
            ["make", "-s", "sanic", f"PYTHON={PYTHON}"], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=600
        )
    if made.returncode:
        if os.environ.get("CI"):
            pytest.fail(f"no environment for Sanic: {made.stderr}")
        pytest.skip("sanic is not installed; to get it: make sanic")
    return str(ROOT / ".sanic" / platform.python_version() / "bin" / "python")


@pytest.fixture
def run(
    launch: Any, http: Any, eventually: Any, free_port: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., Run]:
    def start(*command: str) -> Run:
        port = free_port()
        words = [word.replace("{port}", str(port)) for word in command]
        if words[0] == "{sanic}":
            words[0] = request.getfixturevalue("sanic")
        supervisor = launch(
            PYTHON, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", *words,
            # Sanic's processes have a socket in the temporary folder, whose address may have 107 bytes.
            env={"DIAGNOSTICS_DIR": str(tmp_path / "dir"), "TMPDIR": "/tmp"}, cwd=APPS,
        )  # fmt: skip
        monitor = supervisor.wait_for("diagnostics http", patience=60).split()[1].removesuffix("/debug/memory")
        service = Run(http, eventually, monitor, port)
        eventually(service.worker, patience=60, what="a worker that answers")
        return service

    return start


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_streams_are_seen_through_the_servers_own_objects(case: Case, run: Any, eventually: Any) -> None:
    service = run(*case.command)
    with service.get("/stream/anna?token=secret"), service.get("/slow", read=False):
        row = service.stream("/stream/anna")
        told = service.connections()
        assert told["unknown"] == []
        assert (told["source"], told["server"]) == ("server", case.server)
        assert (row["source"], row["route"], row["method"]) == ("server", case.route, "GET")
        assert row["response_started"] is (None if case.blind else True)
        assert row["age_counts_from"] == case.since
        assert row["task"]
        later = service.stream("/stream/anna", until=lambda now: now["age_seconds"] > row["age_seconds"])
        assert later["task"] == row["task"]
        eventually(lambda: service.connections()["open"] == 2 and service.connections()["requests"] == 2)
        # A request whose response has not begun is no stream; where the server does not tell, it may be one.
        assert ("/slow" in {one["path"] for one in service.streams()}) is case.blind
        assert service.metric("stream_open_connections", route=case.route, worker="0") == 1
        assert "secret" not in str(service.worker())
    # hypercorn keeps a connection until its app has ended, and Litestar's /slow goes on after its client has gone.
    left = 1 if case.server == "hypercorn" else 0
    eventually(lambda: service.connections()["open"] <= left, patience=30)
    eventually(lambda: not [one for one in service.streams() if one["path"] == "/stream/anna"], patience=30)
    # The gauge of a route that had streams returns to zero; it does not vanish.
    assert service.metric("stream_open_connections", route=case.route, worker="0") == 0
    assert service.connections()["unknown"] == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_client_that_does_not_read_shows_in_transport_and_kernel(case: Case, run: Any, eventually: Any) -> None:
    service = run(*case.command)

    def held(layer: str) -> float | None:
        found: float | None = service.metric("stream_buffered_bytes", layer=layer, route="/flood", worker="0")
        return found

    with service.get("/flood"):
        if case.blind:
            row = service.stream("/flood")
            assert row["transport_bytes"] is row["kernel_bytes"] is None
            assert held("transport") is held("kernel") is None
            # All connections together are still counted from outside.
            eventually(
                lambda: (
                    (service.metric("stream_buffered_bytes", layer="kernel", route="(unrouted)", worker="0") or 0)
                    > 100_000
                )
            )
        else:
            row = service.stream("/flood", until=lambda row: row["transport_bytes"] and row["kernel_bytes"])
            assert row["held_bytes"] == row["transport_bytes"] + row["kernel_bytes"] > 100_000
            eventually(lambda: (held("transport") or 0) > 0 and (held("kernel") or 0) > 100_000)
    if not case.blind:
        eventually(lambda: held("transport") == held("kernel") == 0, patience=30)
    eventually(lambda: not [row for row in service.streams() if row["path"] == "/flood"], patience=30)


@pytest.mark.parametrize(
    "name", ["aiohttp", "quart-hypercorn", "litestar-granian", "sanic", "tornado", "litestar-uvicorn"]
)
def test_a_web_socket_is_a_connection_and_no_stream(name: str, run: Any, eventually: Any) -> None:
    service = run(*CASES[name].command)
    upgrade = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    with service.get("/socket", headers=upgrade) as client:
        assert b" 101 " in b"H" + client.recv(4096)
        eventually(lambda: service.connections()["open"] == 1)
        with service.get("/stream/b"):
            service.stream("/stream/b")
            assert [row["path"] for row in service.streams()] == ["/stream/b"]
            eventually(lambda: service.connections()["open"] == 2)  # the monitor counts them once in a while


def test_a_body_that_aiohttp_writes_after_the_handler_has_returned_is_a_stream(run: Any) -> None:
    service = run(*CASES["aiohttp"].command)
    with service.get("/returned"):
        row = service.stream("/returned")
        assert (row["route"], row["response_started"]) == ("/returned", True)
