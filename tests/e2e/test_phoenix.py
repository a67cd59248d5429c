"""Traces as a product that receives OTLP shows them: Arize Phoenix, in an environment of its own (`make phoenix`)."""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PHOENIX = Path(__file__).parents[2] / ".phoenix/bin/phoenix"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
OUTCOME = "highwater.stream.outcome"


@pytest.fixture
def phoenix(launch: Callable[..., Any], free_port: Callable[[], int], tmp_path: Path) -> str:
    """Its URL. It imports for some ten seconds."""
    if not PHOENIX.exists():
        reason = "phoenix is not installed; to get it: make phoenix"
        if os.environ.get("CI"):
            pytest.fail(f"{reason} (in CI a missing server is a failure)", pytrace=False)
        pytest.skip(reason)
    port = free_port()
    launch(
        PHOENIX, "serve",
        env={
            "PHOENIX_HOST": "127.0.0.1", "PHOENIX_PORT": str(port), "PHOENIX_GRPC_PORT": str(free_port()),
            "PHOENIX_WORKING_DIR": str(tmp_path), "PHOENIX_TELEMETRY_ENABLED": "false", "PYTHONPATH": "",
        },
    ).wait_for("Uvicorn running", patience=150)  # fmt: skip
    return f"http://127.0.0.1:{port}"


class Asking:
    """Streams of one relay, each asked for on a connection of its own."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 0)

    def stream(self, model: str, *, enough: int | None = None, traceparent: str = "") -> bytes:
        """The response, whole or until `enough` bytes of it have come."""
        more = f"traceparent: {traceparent}\r\n" if traceparent else ""
        with closing(socket.create_connection(self._address, timeout=60)) as connection:
            connection.sendall(f"GET /stream?prompt=x&model={model} HTTP/1.0\r\nHost: localhost\r\n{more}\r\n".encode())
            received = b""
            while (enough is None or len(received) < enough) and (chunk := connection.recv(65536)):
                received += chunk
            return received


def spans(http: Callable[..., Any], url: str) -> Iterator[dict[str, Any]]:
    answer = http(f"{url}/v1/projects/default/spans?limit=1000")
    if answer.status == 200:  # there is no project before its first span
        yield from answer.json()["data"]


@pytest.mark.long
def test_each_stream_is_one_trace_with_its_parents_and_its_outcome(
    phoenix: str, launch: Callable[..., Any], http: Callable[..., Any], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    relay = launch(
        sys.executable, "-m", "relay", "serve", "--port", "0", "--no-diagnostics", "--max-streams", "1",
        "--read-timeout-seconds", "0.5", "--write-timeout-seconds", "1", "--drain-seconds", "0", "--upstream-retries", "0",
        env={
            "OTEL_EXPORTER_OTLP_ENDPOINT": phoenix, "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        },
        cwd=tmp_path,
    )  # fmt: skip
    ask = Asking(relay.wait_for("relay http").split()[1])

    def ended(count: int) -> None:
        eventually(lambda: relay.output.count('"stream ended"') == count)

    ask.stream("sim:events=100,pace=0", traceparent=f"00-{TRACE}-{PARENT}-01")
    ask.stream("sim:pace=0,fault=disconnect@3")
    ask.stream("sim:pace=0,fault=stall@3")
    ask.stream("sim:events=inf,pace=50", enough=500)
    ended(4)
    with closing(socket.create_connection(ask._address)) as unread:
        unread.sendall(
            b"GET /stream?prompt=x&model=sim:events=inf,pace=0,size=4000 HTTP/1.0\r\nHost: localhost\r\n\r\n"
        )
        ended(5)
    with closing(socket.create_connection(ask._address)) as still_open:
        still_open.sendall(b"GET /stream?prompt=x&model=sim:events=inf,pace=10 HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert still_open.recv(100)
        assert ask.stream("sim:events=1").startswith(b"HTTP/1.1 503")
        assert relay.end() == 0

    found = eventually(lambda: len(list(spans(http, phoenix))) >= 13 and list(spans(http, phoenix)))
    traces: dict[str, dict[str, Any]] = {}
    for span in found:
        kind = "client" if span["name"].startswith("chat ") else "server"
        of_trace = traces.setdefault(span["context"]["trace_id"], {})
        assert kind not in of_trace, "two of a kind in one trace"
        of_trace[kind] = span
    outcomes = {}
    for of_trace in traces.values():
        server, client = of_trace["server"], of_trace.get("client")
        outcome = server["attributes"][OUTCOME]
        if client is not None:
            assert client["parent_id"] == server["context"]["span_id"]
            assert client["attributes"][OUTCOME] == outcome
            assert client["status_code"] == server["status_code"]
            # It has understood the GenAI names.
            assert client["span_kind"] == "LLM"
            assert client["attributes"]["llm.model_name"] == client["attributes"]["gen_ai.request.model"]
        outcomes[outcome] = server["status_code"]
    assert outcomes == {
        "completed": "UNSET", "client_disconnected": "UNSET", "slow_client": "UNSET", "shutdown": "UNSET",
        "upstream_error": "ERROR", "timeout": "ERROR", "rejected": "ERROR",
    }  # fmt: skip
    assert len(traces) == len(outcomes)
    assert traces[TRACE]["server"]["parent_id"] == PARENT
    assert "prompt" not in json.dumps(found)
