"""Streams of a server that nobody can list are not "0 streams": a capture of what they retain says that it does not know."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SERVICE = """
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


# An asyncio server whose streams are found without a ledger.
AIOHTTP = """
import asyncio, sys
from aiohttp import web

async def events(request):
    answer = web.StreamResponse()
    await answer.prepare(request)
    held = bytes(300_000)
    await answer.write(b"x")
    await asyncio.sleep(60)

app = web.Application()
app.router.add_get("/", events)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


@pytest.fixture
def retained(
    launch: Any, http: Any, eventually: Any, free_port: Any, tmp_path: Path
) -> Callable[[str, int], tuple[str, dict[str, Any]]]:
    """(source of a service, how many streams to open) -> what the command prints, and the capture's result."""

    def take(source: str, count: int) -> tuple[str, dict[str, Any]]:
        (tmp_path / "service.py").write_text(source, encoding="utf-8")
        port = free_port()
        command = ("run", "--listen", "127.0.0.1:0", "--", sys.executable, str(tmp_path / "service.py"), str(port))
        supervisor = launch(
            sys.executable, "-m", "diagnostics", *command, env={"DIAGNOSTICS_DIR": str(tmp_path / "dir")}
        )
        monitor = supervisor.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
        eventually(
            lambda: [w for w in http(f"{monitor}/debug/memory").json()["workers"] if w["state"] == "answering"],
            patience=60,
        )
        with contextlib.ExitStack() as streams:
            for _ in range(count):
                stream = streams.enter_context(urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20))
                assert stream.read(1) == b"x"
            taken = subprocess.run(
                [sys.executable, "-m", "diagnostics", "capture", monitor, "--kind", "retained", "-o", str(tmp_path)],
                capture_output=True,
                encoding="utf-8",
                timeout=100,
                check=True,
            )
        (manifest,) = http(f"{monitor}/debug/memory/captures").json()["captures"]
        result: dict[str, Any] = http(f"{monitor}/debug/memory/captures/{manifest['id']}").json()["result"]
        return " ".join(taken.stderr.split()), result

    return take


@pytest.mark.e2e
def test_what_unknown_streams_retain_is_unknown(retained: Any) -> None:
    said, result = retained(SERVICE, 1)
    assert "not known one by one" in said
    assert "0 open streams" not in said
    assert [result[key] for key in ("open", "total_bytes", "total_count", "shared_between_bytes")] == [None] * 4
    assert "instrument(app)" in json.dumps(result["unknown"])


@pytest.mark.e2e
def test_streams_of_a_server_that_shows_them_are_counted_with_what_they_keep(retained: Any) -> None:
    """ "0 kept alive by 0 open streams", with eight of them open."""
    said, result = retained(AIOHTTP, 8)
    assert result["open"] == 8, said
    assert result["total_bytes"] > 8 * 300_000
