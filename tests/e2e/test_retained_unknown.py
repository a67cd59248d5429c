"""Streams of a server that nobody can list are not "0 streams": a capture of what they retain says that it does not know."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
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


@pytest.mark.e2e
def test_what_unknown_streams_retain_is_unknown(
    launch: Any, http: Any, eventually: Any, free_port: Any, tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    port = free_port()
    command = ("run", "--listen", "127.0.0.1:0", "--", sys.executable, str(tmp_path / "service.py"), str(port))
    supervisor = launch(sys.executable, "-m", "diagnostics", *command, env={"DIAGNOSTICS_DIR": str(tmp_path / "dir")})
    monitor = supervisor.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
    eventually(
        lambda: [w for w in http(f"{monitor}/debug/memory").json()["workers"] if w["state"] == "answering"], patience=60
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as stream:
        assert stream.read(1) == b"x"
        taken = subprocess.run(
            [sys.executable, "-m", "diagnostics", "capture", monitor, "--kind", "retained", "-o", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
    assert "not known one by one" in " ".join(taken.stderr.split())
    assert "0 open streams" not in taken.stderr
    (manifest,) = http(f"{monitor}/debug/memory/captures").json()["captures"]
    result = http(f"{monitor}/debug/memory/captures/{manifest['id']}").json()["result"]
    assert [result[key] for key in ("open", "total_bytes", "total_count", "shared_between_bytes")] == [None] * 4
    assert "instrument(app)" in json.dumps(result["unknown"])
