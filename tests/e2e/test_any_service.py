"""`diagnostics run -- CMD` with the servers that people run, unmodified, and what /debug/memory then shows of them."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

ASGI = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan here")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    left = asyncio.ensure_future(until_gone(receive))
    while not left.done():
        size = 100_000 if scope["path"] == "/flood" else 10
        await send({"type": "http.response.body", "body": b"x" * size, "more_body": True})
        await asyncio.sleep(0.01)

async def until_gone(receive):
    while (await receive())["type"] != "http.disconnect":
        pass
"""
INSTRUMENTED = """
from asgi import app as plain
from diagnostics import instrument
app = instrument(plain, routes=["/flood"])
"""
WSGI = """
import time

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    for _ in range(600):
        yield b"x"
        time.sleep(0.1)
"""
SCRIPT = """
import http.server, sys, time

class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x")
        time.sleep(60)

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

Server(("127.0.0.1", int(sys.argv[1])), Slow).serve_forever()
"""

PYTHON = (sys.executable,)
MODULE = (sys.executable, "-m")


class Run:
    """A service under `diagnostics run`."""

    def __init__(self, http: Any, eventually: Any, monitor: str, port: int) -> None:
        self.http, self.eventually, self.monitor, self.port = http, eventually, monitor, port

    def workers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http(f"{self.monitor}/debug/memory").json()["workers"]
        return found

    def answering(self, count: int) -> list[dict[str, Any]]:
        def ready() -> Any:
            workers = self.workers()
            return len(workers) == count and all(worker["state"] == "answering" for worker in workers) and workers

        found: list[dict[str, Any]] = self.eventually(ready, patience=60, what=f"{count} workers that answer")
        return found

    def get(self, path: str = "/") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert client.recv(1)
        return client


@pytest.fixture
def run(launch: Any, http: Any, eventually: Any, free_port: Any, tmp_path: Path) -> Callable[..., Run]:
    def start(*command: str, env: dict[str, str] | None = None) -> Run:
        for name, source in (("asgi", ASGI), ("instrumented", INSTRUMENTED), ("wsgi", WSGI), ("script", SCRIPT)):
            (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        port = free_port()
        supervisor = launch(
            sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--",
            *(word.replace("{port}", str(port)) for word in command),
            env={"DIAGNOSTICS_DIR": str(tmp_path / "dir"), **(env or {})},
            cwd=tmp_path,
        )  # fmt: skip
        monitor = supervisor.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
        return Run(http, eventually, monitor, port)

    return start


GUNICORN = (*MODULE, "gunicorn", "--bind", "127.0.0.1:{port}", "--workers", "2")


@pytest.mark.parametrize(
    ("command", "workers", "source"),
    [
        pytest.param((*MODULE, "uvicorn", "asgi:app", "--port", "{port}"), 1, "server", id="uvicorn"),
        pytest.param(
            (*MODULE, "uvicorn", "asgi:app", "--port", "{port}", "--workers", "2"), 2, "server", id="uvicorn-workers"
        ),
        pytest.param((*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "asgi:app"), 2, "server", id="gunicorn-uvicorn"),
        pytest.param(
            (*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "--preload", "asgi:app"), 2, "server", id="gunicorn-preload"
        ),
        pytest.param((*GUNICORN, "wsgi:app"), 2, "sockets", id="gunicorn-sync"),
        pytest.param((*MODULE, "hypercorn", "asgi:app", "--bind", "127.0.0.1:{port}"), 1, "server", id="hypercorn"),
        pytest.param(
            (*MODULE, "granian", "--interface", "asgi", "asgi:app", "--port", "{port}", "--workers", "2"),
            2, "server", id="granian",
        ),
        pytest.param((*PYTHON, "script.py", "{port}"), 1, "sockets", id="script"),
        pytest.param(("sh", "-c", f"{sys.executable} script.py {{port}}; :"), 1, "sockets", id="shell"),
    ],
)  # fmt: skip
def test_workers_are_listed_and_their_connections_counted(
    run: Any, eventually: Any, command: tuple[str, ...], workers: int, source: str
) -> None:
    service = run(*command)
    found = service.answering(workers)
    assert [worker["worker"] for worker in found] == [str(number) for number in range(workers)]
    assert {worker["connections"]["source"] for worker in found} == {source}
    with service.get("/x?secret"):
        eventually(lambda: sum(worker["connections"]["open"] for worker in service.workers()) == 1)
        expected = ["server"] if source == "server" else []

        # A look is good for a moment: the kernel may show a connection earlier than the agent.
        def shown() -> Any:
            answer = service.http(f"{service.monitor}/debug/memory/streams")
            return [row["source"] for row in answer.json()["streams"]] == expected and answer

        answer = eventually(shown)
        assert b"secret" not in answer.body
        # Where streams are not known, it is said why: the list is not just empty.
        assert bool(answer.json()["unknown"]) is (source == "sockets")
    if "wsgi:app" not in command and "script.py" not in " ".join(command):  # those do not notice that a client has gone
        eventually(lambda: sum(worker["connections"]["open"] for worker in service.workers()) == 0)


def test_a_client_that_does_not_read_shows_in_the_layers_that_hold_its_bytes(run: Any, eventually: Any) -> None:
    service = run(*MODULE, "uvicorn", "asgi:app", "--port", "{port}")
    service.answering(1)

    def held(layer: str) -> float:
        name = f'stream_buffered_bytes{{layer="{layer}",route="(unrouted)",worker="0"}} '
        lines = service.http(f"{service.monitor}/metrics").body.decode().splitlines()
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    with service.get("/flood"):
        eventually(lambda: held("transport") > 0 and held("kernel") > 100_000)
        (row,) = service.http(f"{service.monitor}/debug/memory/streams").json()["streams"]
        assert (row["path"], row["route"], row["source"]) == ("/flood", "(unrouted)", "server")
        assert row["held_bytes"] == row["transport_bytes"] + row["kernel_bytes"] > 100_000
        metrics = service.http(f"{service.monitor}/metrics").body
        assert b'stream_open_connections{route="(unrouted)",worker="0"} 1.0' in metrics
        assert b"/flood" not in metrics
    eventually(lambda: held("transport") == held("kernel") == 0)


def test_an_instrumented_service_shows_its_streams_in_all_three_layers(run: Any, eventually: Any) -> None:
    service = run(*MODULE, "uvicorn", "instrumented:app", "--port", "{port}")
    service.answering(1)
    with service.get("/flood"):
        (row,) = eventually(
            lambda: [
                row
                for row in service.http(f"{service.monitor}/debug/memory/streams").json()["streams"]
                if row["transport_bytes"] and row["kernel_bytes"]
            ]
        )
        assert (row["source"], row["route"], row["buffered_bytes"]) == ("ledger", "/flood", 0)
        metrics = service.http(f"{service.monitor}/metrics").body.decode()
        lines = {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line[0] != "#"
        }
        layers = {
            layer: lines[f'stream_buffered_bytes{{layer="{layer}",route="/flood",worker="0"}}']
            for layer in ("app", "transport", "kernel")
        }
        assert layers["app"] == 0 < layers["transport"] < layers["kernel"] + layers["transport"]
        (worker,) = service.workers()
        assert worker["connections"]["source"] == "ledger"


def test_a_worker_that_is_replaced_leaves_its_number_and_one_is_captured_by_name(run: Any, eventually: Any) -> None:
    service = run(*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "asgi:app")
    first, second = service.answering(2)
    os.kill(first["pid"], signal.SIGKILL)
    eventually(lambda: first["pid"] not in {worker["pid"] for worker in service.workers()})
    now = {worker["worker"]: worker["pid"] for worker in service.answering(2)}
    assert set(now) == {"0", "1"}
    assert now["1"] == second["pid"]
    asked = {"kind": "tracemalloc", "seconds": 0.2, "worker": "1", "force": True}
    begun = service.http(f"{service.monitor}/debug/memory/captures", "POST", asked)
    assert begun.json()["pid"] == second["pid"]
    url = f"{service.monitor}{begun.headers['Location']}"
    assert (
        eventually(lambda: (found := service.http(url).json())["state"] in ("done", "failed") and found)["state"]
        == "done"
    )
    one = service.http(f"{service.monitor}/debug/memory?worker=1").json()["workers"]
    assert [worker["pid"] for worker in one] == [second["pid"]]


@pytest.mark.parametrize("flag", ["-I", "-E", "-S"])
def test_a_service_that_shuts_the_hook_out_is_read_from_outside_and_this_is_said(
    run: Any, eventually: Any, flag: str
) -> None:
    service = run(*PYTHON, flag, "script.py", "{port}")
    eventually(lambda: [worker for worker in service.workers() if worker["connections"].get("ports")])
    with service.get():
        (worker,) = eventually(lambda: [one for one in service.workers() if one["connections"]["open"] == 1])
    assert worker["state"] == "outside"
    assert f"started with {flag}" in worker["reason"]
    assert worker["memory"]["rss_bytes"] > 0
    answer = service.http(f"{service.monitor}/debug/memory/captures", "POST", {"kind": "tracemalloc", "worker": "0"})
    assert answer.status == 502
    assert answer.json()["error"]["code"] == "no_agent"
    assert "diagnostics run" in answer.json()["error"]["remedy"]


def test_a_script_that_serves_nothing_has_an_agent_where_it_is_asked_for(run: Any, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("import time; time.sleep(60)", encoding="utf-8")
    service = run(*PYTHON, "job.py", env={"DIAGNOSTICS_AGENT": "always"})
    (worker,) = service.answering(1)
    assert worker["connections"]["open"] == 0
