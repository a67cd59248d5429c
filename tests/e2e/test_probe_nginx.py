"""A probe through a real nginx in front of a real relay: buffered, not buffered, and told not to buffer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diagnostics import cli

pytestmark = [pytest.mark.e2e, pytest.mark.needs("nginx", "nginx")]

CONFIGURATION = """
daemon off;
worker_processes 1;
error_log stderr warn;
pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        # nginx passes chunks on as they come even where it buffers, but does not flush its compressor after each:
        # with gzip the events wait there. Without buffering, it does.
        gzip on; gzip_types text/event-stream; gzip_min_length 0;
        location /buffered/ {{ proxy_pass {relay}/; proxy_ignore_headers X-Accel-Buffering; }}
        location /off/ {{ proxy_pass {relay}/; proxy_ignore_headers X-Accel-Buffering; proxy_buffering off; }}
        location /told/ {{ proxy_pass {relay}/; }}
    }}
}}
"""


@pytest.fixture
def behind(
    launch: Callable[..., Any],
    free_port: Callable[[], int],
    tmp_path: Path,
    eventually: Callable[..., Any],
    http: Callable[..., Any],
) -> str:
    """The address of an nginx with three ways to one relay."""
    command = [sys.executable, "-m", "relay", "serve", "--port", "0", "--no-diagnostics"]
    relay = launch(*command).wait_for("relay http", 40).split()[1]
    port = free_port()
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=tmp_path, port=port, relay=relay), encoding="utf-8")
    nginx = launch("nginx", "-e", "stderr", "-p", tmp_path, "-c", configuration)

    def answers() -> bool:
        assert nginx.process.poll() is None, nginx.output
        try:
            return bool(http(f"http://127.0.0.1:{port}/told/healthz").status == 200)
        except OSError:
            return False

    eventually(answers)
    return f"http://127.0.0.1:{port}"


def test_a_proxy_that_buffers_is_told_from_one_that_does_not(behind: str, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(
        json.dumps({"model": "sim:events=40,pace=40,size=24", "stream": True, "messages": []}), encoding="utf-8"
    )
    verdicts = {}
    for place in ("buffered", "off", "told"):
        numbers = tmp_path / f"{place}.json"
        url = f"{behind}/{place}/v1/chat/completions"
        code = cli.main(["probe", url, "--body", str(body), "--json", str(numbers)])
        found = json.loads(numbers.read_text(encoding="utf-8"))
        assert found["events"] >= 40
        assert found["headers"]["server"].startswith("nginx")
        verdicts[place] = (code, {v["subject"]: v["level"] for v in found["verdicts"]}["buffering"])
    assert verdicts == {"buffered": (1, "bad"), "off": (0, "good"), "told": (0, "good")}
