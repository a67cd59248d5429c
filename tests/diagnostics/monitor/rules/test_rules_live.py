"""Rules of a service under `diagnostics run`: what reaches a receiver, what a command is given, what a restart leaves."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from diagnostics.monitor.rules.actions.messages import SIGNATURE, verified

APP = """
import asyncio, time
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from diagnostics import instrument

app = FastAPI()
ledger = instrument(app)
held = ledger.open("/chat")

@app.get("/hold")
async def hold(size: int):
    held.hold(size)

@app.get("/block")
async def block():
    time.sleep(3)

@app.get("/goes-on")
async def goes_on():
    asyncio.create_task(stream(), name="goes on")

async def stream():
    with ledger.stream("/goes-on") as record:
        record.disconnected()
        await asyncio.sleep(600)
"""

RULES = """
[[rule]]
name = "buffers"
trigger = "buffered_bytes"
above = 1000000
for = 0
capture = "tasks"
cooldown = 3600

[[rule.action]]
do = "webhook"
url = "{url}/hook/secret-path?token=secret-query"
key_env = "HOOK_KEY"

[[rule.action]]
do = "command"
argv = ["{python}", "-c", "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())", "{out}", "secret-word"]
timeout = 60

[[rule.action]]
do = "log"
level = "error"

[[rule]]
name = "per-fd"
when = "buffered_app_bytes / fds > 10000 for 0 s"
[[rule.action]]
do = "webhook"
url_env = "SLACK_URL"
shape = "slack"
"""


def test_a_firing_reaches_its_receivers_once_and_a_restart_does_not_repeat_it(
    observed: Any, receiver: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    rules, out = tmp_path / "rules.toml", tmp_path / "told.json"
    rules.write_text(RULES.format(url=receiver.url, python=sys.executable, out=out), encoding="utf-8")
    rules.chmod(0o600)
    env = {
        "DIAGNOSTICS_RULES": str(rules), "DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.1", "HOOK_KEY": "a key",
        "SLACK_URL": f"{receiver.url}/slack-secret",
    }  # fmt: skip
    service = observed(APP, env=env)
    eventually(lambda: http(f"{service.url}/hold?size=2000000").status == 200)

    # The webhook, signed, and Slack's.
    by_path = eventually(lambda: len(receiver.received) == 2 and {path: rest for path, *rest in receiver.received})
    headers, body = by_path["/hook/secret-path?token=secret-query"]
    assert verified(b"a key", headers[SIGNATURE], body, time.time())
    told = json.loads(body)
    assert (told["rule"], told["worker"], told["trigger"]) == ("buffers", "0", "buffered_bytes")
    assert (told["value"], told["bound"]) == (2_000_000, 1_000_000)
    assert json.loads(by_path["/slack-secret"][1])["text"].startswith("Rule per-fd fired on ")

    # The command, and the capture whose id both were told.
    eventually(lambda: out.exists() and out.read_text(encoding="utf-8").endswith("\n"))
    assert json.loads(out.read_text(encoding="utf-8")) == told

    def firing() -> Any:
        firings = http(f"{service.monitor}/debug/memory/rules").json()["firings"]
        (found,) = [one for one in firings if one["rule"] == "buffers"]
        return found["outcome"] == "done" and len(found["actions"]) == 4 and found

    found = eventually(firing)
    assert sorted(found["actions"]) == [[do, "done", None] for do in ("capture", "command", "log", "webhook")]
    if told["capture"] is not None:  # where it began within the time that messages wait for it
        assert told["capture"] == found["capture"]

    # What is shown, counted and written down, without what is secret.
    page = http(f"{service.monitor}/debug/memory/rules").body.decode()
    metrics = http(f"{service.monitor}/metrics").body.decode()
    audit = (tmp_path / "dir" / "audit.log").read_text(encoding="utf-8")
    for action in ("capture", "command", "log", "webhook"):
        line = f'diagnostics_rule_actions_total{{action="{action}",outcome="done",rule="buffers",worker="0"}} 1.0'
        assert line in metrics
    noted = [json.loads(line) for line in audit.splitlines()]
    assert sorted(
        (line["event"], line["outcome"], line.get("action")) for line in noted if line["who"] == "rule buffers"
    ) == [("capture", "begun", None), ("rule", "done", "command"), ("rule", "done", "log"), ("rule", "done", "webhook")]
    log = service.supervisor.output
    assert '"schema": "highwater.rule/1"' in log
    for text in (page, metrics, audit, log):
        assert "secret" not in text
        assert "a key" not in text

    # Another monitor and another process in the same folder: the limits are the same.
    service.supervisor.end()
    receiver.received.clear()
    again = observed(APP, env=env)
    eventually(lambda: http(f"{again.url}/hold?size=2000000").status == 200)
    line = 'diagnostics_rule_actions_total{action="webhook",outcome="suppressed",rule="buffers",worker="0"} 1.0'
    eventually(lambda: line in http(f"{again.monitor}/metrics").body.decode())
    assert receiver.received == []
    assert http(f"{again.monitor}/debug/memory/rules").json()["firings"] == []
    again.supervisor.end()


LAG = """
[[rule]]
name = "lag"
trigger = "loop_lag"
above = 0.3
for = 0
[[rule.action]]
do = "webhook"
url = "{url}"

[[rule]]
name = "left"
trigger = "unclosed_upstreams"
above = 0
for = 0
[[rule.action]]
do = "webhook"
url = "{url}"
"""


def test_a_blocked_loop_and_a_stream_that_goes_on_fire_and_a_receiver_that_fails_is_told(
    observed: Any, receiver: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(LAG.format(url=receiver.url), encoding="utf-8")
    receiver.answers += [(404, {})]
    service = observed(APP, env={"DIAGNOSTICS_RULES": str(rules), "DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.1"})
    eventually(lambda: http(f"{service.url}/goes-on").status == 200)
    (told,) = eventually(lambda: [json.loads(body) for _, _, body in receiver.received])
    assert (told["rule"], told["value"] >= 1) == ("left", True)
    failed = 'diagnostics_rule_actions_total{action="webhook",outcome="failed",rule="left",worker="0"} 1.0'
    eventually(lambda: failed in http(f"{service.monitor}/metrics").body.decode())
    assert "rule left: its webhook failed: http://127.0.0.1 was asked once: status 404" in service.supervisor.output
    parts = urlsplit(service.url)
    with socket.create_connection((parts.hostname, parts.port)) as client:
        client.sendall(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
        second = eventually(lambda: [json.loads(body) for _, _, body in receiver.received[1:]])[0]
        assert (second["rule"], second["value"] > 0.3) == ("lag", True)
    service.supervisor.end()


@pytest.mark.needs("prometheus-alertmanager", "prometheus-alertmanager")
def test_a_real_alertmanager_takes_the_alerts(
    observed: Any, launch: Any, http: Any, eventually: Any, free_port: Any, tmp_path: Path
) -> None:
    port = free_port()
    config = tmp_path / "alertmanager.yml"
    config.write_text("route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n", encoding="utf-8")
    launch(
        "prometheus-alertmanager", f"--config.file={config}", f"--storage.path={tmp_path / 'alerts'}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}/api/v2/alerts"
    eventually(lambda: reached(http, url), patience=120)
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\nname = "rss"\nwhen = "rss_bytes > 1 MiB for 0 s"\n'
        f'[[rule.action]]\ndo = "webhook"\nurl = "{url}"\nshape = "alerts"\n',
        encoding="utf-8",
    )
    service = observed(APP, env={"DIAGNOSTICS_RULES": str(rules), "DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.1"})
    alerts = eventually(lambda: http(url).json())
    assert {**alerts[0]["labels"], "host": ""} == {
        "alertname": "HighwaterRule",
        "rule": "rss",
        "worker": "0",
        "host": "",
    }
    assert alerts[0]["status"]["state"] == "active"
    assert "rss_bytes > 1048576" in alerts[0]["annotations"]["summary"]
    service.supervisor.end()


def reached(http: Any, url: str) -> bool:
    try:
        return bool(http(url).status == 200)
    except OSError:
        return False
