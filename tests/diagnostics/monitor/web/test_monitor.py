"""The monitor beside a live service that knows nothing of it: `diagnostics run -- uvicorn ...`."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

LOWEST_PRIORITY = 19  # setpriority(2)

APP = """
import asyncio, time
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()
kept = []

@app.get("/fill")
async def fill(seconds: float):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        kept.append(bytearray(4000))
        await asyncio.sleep(0.005)

@app.get("/block")
async def block(seconds: float):
    time.sleep(seconds)
"""

INSTRUMENTED = (
    APP
    + """
from diagnostics import instrument
ledger = instrument(app, monitor=True)

@app.get("/stream")
async def stream(n: int = 1000):
    async def events():
        for number in range(n):
            yield f"data: {number}\\n\\n"
            await asyncio.sleep(0.01)
    return StreamingResponse(events(), media_type="text/event-stream")
"""
)


def answering(http: Any, service: Any) -> Any:
    workers = http(f"{service.monitor}/debug/memory").json()["workers"]
    return workers[0] if workers and workers[0]["state"] == "answering" else None


def finished(http: Any, eventually: Any, service: Any, location: str) -> Any:
    url = service.monitor + location
    return eventually(
        lambda: (found := http(url).json())["state"] in ("done", "failed", "cancelled") and found, patience=60
    )


def in_background(http: Any, url: str) -> threading.Thread:
    thread = threading.Thread(target=http, args=(url,))
    thread.start()
    return thread


def test_an_unchanged_service_is_read_from_inside_and_outside(observed: Any, http: Any, eventually: Any) -> None:
    service = observed(APP)
    worker = eventually(lambda: answering(http, service))
    assert worker["worker"] == "0"
    assert worker["ledger"] is None
    memory = worker["memory"]
    assert 0 < memory["python_live_bytes"] < memory["in_use_bytes"] < 2 * memory["rss_bytes"]
    in_background(http, f"{service.url}/fill?seconds=1").join()
    grown = answering(http, service)["memory"]["in_use_bytes"] - memory["in_use_bytes"]
    assert grown > 100 * 4000


def test_it_answers_while_the_loop_is_blocked_and_while_the_process_is_stopped(
    observed: Any, http: Any, eventually: Any
) -> None:
    service = observed(APP)
    pid = eventually(lambda: answering(http, service))["pid"]
    blocked = in_background(http, f"{service.url}/block?seconds=2")
    time.sleep(0.3)
    assert answering(http, service)["pid"] == pid
    assert b'diagnostics_agent_up{worker="0"} 1.0' in http(f"{service.monitor}/metrics").body
    blocked.join()
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(0.2)
        worker = http(f"{service.monitor}/debug/memory").json()["workers"][0]
        assert (worker["state"], worker["pid"]) == ("silent", pid)
        assert worker["reason"] == "the process is stopped (state T)"
        assert worker["memory"]["rss_bytes"] > 0
        assert worker["last"]["time"] < time.time()
        assert b'diagnostics_agent_up{worker="0"} 0.0' in http(f"{service.monitor}/metrics").body
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: answering(http, service))


@pytest.mark.parametrize("kind", ["memray", "tracemalloc"])
def test_a_capture_names_the_line_that_holds_the_memory(observed: Any, http: Any, eventually: Any, kind: str) -> None:
    service = observed(APP)
    eventually(lambda: answering(http, service))
    filling = in_background(http, f"{service.url}/fill?seconds=3")
    begun = http(f"{service.monitor}/debug/memory/captures", "POST", {"kind": kind, "seconds": 1.5, "force": True})
    assert begun.status == 202
    location = begun.headers["Location"]
    busy = http(f"{service.monitor}/debug/memory/captures", "POST", {"kind": kind})
    assert (busy.status, busy.json()["error"]["running"]) == (409, begun.json()["id"])
    capture = finished(http, eventually, service, location)
    filling.join()
    assert capture["state"] == "done", capture
    top = capture["result"]["top"][0]
    assert top["file"].endswith("service.py")
    assert APP.splitlines()[top["line"] - 1].strip() == "kept.append(bytearray(4000))"
    everywhere = {"flame.html", "profile.json", "profile.pb.gz"}
    pages = {"capture.bin", "flamegraph.html", "flamegraph-high-water.html", "table.html"}
    names = everywhere | (pages if kind == "memray" else set())
    assert {artifact["name"] for artifact in capture["artifacts"]} == names
    for artifact in capture["artifacts"]:
        body = http(f"{service.monitor}{location}/artifacts/{artifact['name']}").body
        assert hashlib.sha256(body).hexdigest() == artifact["sha256"]
    if kind == "memray":
        assert capture["result"]["coverage_percent"] > 95
    assert http(service.monitor + location, "DELETE").status == 204
    assert http(service.monitor + location).status == 404


def test_a_cancelled_capture_stops_tracing_and_keeps_nothing(observed: Any, http: Any, eventually: Any) -> None:
    service = observed(APP)
    eventually(lambda: answering(http, service))
    asked = {"kind": "tracemalloc", "seconds": 60, "force": True}
    location = http(f"{service.monitor}/debug/memory/captures", "POST", asked).headers["Location"]
    eventually(lambda: answering(http, service)["window"] == "tracemalloc")
    assert http(service.monitor + location, "DELETE").status == 204
    assert answering(http, service)["window"] is None
    assert http(f"{service.monitor}/debug/memory/captures").json() == {"captures": []}


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"kind": "heapdump"}, 422, "unknown kind 'heapdump'"),
        ({"kind": "memray", "seconds": 0}, 422, "seconds is 0"),
        ({"kind": "memray", "seconds": "5"}, 422, "seconds is '5'"),
        ({"kind": "memray", "seconds": 1e9}, 422, "seconds is 1000000000.0"),
        ({"kind": "tracemalloc", "frames": 26}, 422, "frames is 26"),
        ({"kind": "tracemalloc", "frames": True}, 422, "frames is True"),
        ({"kind": "memray", "colour": "red"}, 422, "no option 'colour'"),
        ({"kind": "memray", "worker": "7"}, 404, "no worker '7'"),
        (b"{", 422, "not JSON"),
        (b"[]", 422, "is a JSON list"),
    ],
)
def test_bad_requests_name_the_value_and_touch_nothing(
    observed_once: Any, http: Any, body: Any, status: int, says: str
) -> None:
    answer = http(f"{observed_once.monitor}/debug/memory/captures", "POST", body)
    assert answer.status == status
    assert says in answer.json()["error"]["message"]
    assert answer.json()["error"]["remedy"]
    assert answering(http, observed_once)["window"] is None


@pytest.fixture
def observed_once(observed: Any, http: Any, eventually: Any) -> Any:
    service = observed(APP)
    eventually(lambda: answering(http, service))
    return service


def test_unknown_paths_and_hosts_and_foreign_pages_are_refused(observed_once: Any, http: Any) -> None:
    monitor = observed_once.monitor
    assert http(f"{monitor}/debug/nothing").json()["error"]["code"] == "http"
    assert http(f"{monitor}/debug/memory/captures/..%2f..%2fx").status == 404
    assert http(f"{monitor}/debug/memory", headers={"Host": "evil.example"}).status == 421
    foreign = http(
        f"{monitor}/debug/memory/captures", "POST", {"kind": "tracemalloc"}, {"Origin": "http://evil.example"}
    )
    assert foreign.status == 403
    form = http(f"{monitor}/debug/memory/captures", "POST", b"{}", {"Content-Type": "text/plain"})
    assert form.status == 422


def test_tokens_guard_everything_and_the_read_token_captures_nothing(observed: Any, http: Any) -> None:
    service = observed(APP, env={"DIAGNOSTICS_TOKEN": "all", "DIAGNOSTICS_READ_TOKEN": "some"})
    url = f"{service.monitor}/debug/memory"
    everything, reading, wrong = ({"Authorization": f"Bearer {word}"} for word in ("all", "some", "none"))
    assert [http(url, headers=given).status for given in ({}, wrong, reading, everything)] == [401, 401, 200, 200]
    assert http(f"{url}/captures", "POST", {"kind": "x"}, reading).status == 403
    assert http(f"{url}/captures", "POST", {"kind": "x"}, everything).status == 422


def test_metrics_of_an_instrumented_service_return_to_zero(observed: Any, http: Any, eventually: Any) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    service = observed(INSTRUMENTED)
    eventually(lambda: answering(http, service))

    def samples() -> dict[tuple[str, ...], float]:
        text = http(f"{service.monitor}/metrics").body.decode()
        return {
            (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    host, port = service.url.removeprefix("http://").split(":")
    clients = [socket.create_connection((host, int(port))) for _ in range(3)]
    for client in clients:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    eventually(lambda: samples().get(("stream_open_connections", "/stream", "0")) == 3)
    assert http(f"{service.monitor}/debug/memory/streams").json()["streams"][0]["route"] == "/stream"
    for client in clients:
        client.close()
    eventually(lambda: samples()["stream_open_connections", "/stream", "0"] == 0)
    now = samples()
    assert now["stream_closed_total", "client_disconnected", "/stream", "0"] == 3
    assert now["stream_buffered_bytes", "app", "/stream", "0"] == 0
    assert now["stream_duration_seconds_count", "/stream", "0"] == 3
    assert http(f"{service.monitor}/metrics", headers={"Accept": "application/openmetrics-text"}).body.endswith(
        b"# EOF\n"
    )


def test_a_service_starts_its_own_monitor_goes_on_without_it_and_takes_it_along(
    launch: Any, free_port: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text(INSTRUMENTED, encoding="utf-8")
    port, monitor_port = free_port(), free_port()
    service = launch(
        "nice", "-n", "5", sys.executable, "-m", "uvicorn", "service:app", "--port", str(port),
        env={"DIAGNOSTICS_DIR": str(tmp_path / "dir"), "DIAGNOSTICS_LISTEN": f"127.0.0.1:{monitor_port}"}, cwd=tmp_path,
    )  # fmt: skip
    service.wait_for("Uvicorn running")
    url = f"http://127.0.0.1:{monitor_port}/debug/memory"
    # The monitor may answer before the agent listens: then there is no worker yet.
    worker = eventually(lambda: next(iter(answer.json()["workers"]), None) if (answer := tolerant(http, url)) else None)
    assert worker["pid"] == service.process.pid
    children = Path(f"/proc/{worker['pid']}/task/{worker['pid']}/children").read_text(encoding="utf-8").split()
    (monitor,) = [int(child) for child in children if b"monitor" in Path(f"/proc/{child}/cmdline").read_bytes()]
    # It gives way to the service where there are not enough cores, which the kernel sees to within a session; and the keys that
    # end or stop what runs in a terminal mean the service's process group.
    own = os.getpriority(os.PRIO_PROCESS, service.process.pid)  # the suite itself may run at a low one
    assert os.getpriority(os.PRIO_PROCESS, monitor) == min(own + 10, LOWEST_PRIORITY)
    assert os.getsid(monitor) == os.getsid(service.process.pid)
    assert os.getpgid(monitor) != os.getpgid(service.process.pid)
    os.kill(monitor, signal.SIGKILL)
    assert http(f"http://127.0.0.1:{port}/stream?n=3").body.count(b"data") == 3
    assert service.end() in (0, 143, -15)
    assert tolerant(http, url) is None


def tolerant(http: Any, url: str) -> Any:
    try:
        return http(url)
    except OSError:
        return None


def test_run_ends_with_the_commands_own_exit_code(launch: Any) -> None:
    program = "import os, sys; print('said', os.nice(0)); sys.exit(7)"
    launched = launch(
        sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", sys.executable, "-c", program
    )
    assert launched.process.wait(60) == 7
    assert launched.output.splitlines()[0].startswith("diagnostics http://127.0.0.1:")
    assert f"said {os.nice(0)}" in launched.output  # the monitor's own priority is lower


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "--listen", "127.0.0.1:0"], 2, "no command to run"),
        (["run", "--listen", "127.0.0.1:0", "--", "/no/such/program"], 2, "cannot run '/no/such/program'"),
        (["run", "--listen", "nowhere", "--", "true"], 2, "'nowhere' is not an address"),
        (["run", "--listen", "0.0.0.0:0", "--", "true"], 2, "set DIAGNOSTICS_TOKEN"),
        (["monitor", "--listen", "192.0.2.1:1"], 2, "DIAGNOSTICS_TOKEN"),
        (["frobnicate"], 2, "invalid choice"),
        (["capture", "http://127.0.0.1:1", "--kind", "memray"], 3, "no monitor answers"),
    ],
)
def test_bad_usage_ends_with_its_exit_code_and_a_remedy(
    launch: Any, arguments: list[str], code: int, says: str
) -> None:
    launched = launch(sys.executable, "-m", "diagnostics", *arguments)
    assert launched.process.wait(60) == code
    assert says in launched.output
    assert "Traceback" not in launched.output


def test_a_port_in_use_is_an_error_that_names_it(launch: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        launched = launch(sys.executable, "-m", "diagnostics", "run", "--listen", address, "--", "true")
        assert launched.process.wait(60) == 2
        assert f"cannot listen on {address}: Address already in use" in launched.output


def test_the_capture_command_downloads_what_it_took(observed_once: Any, launch: Any, tmp_path: Path) -> None:
    command = launch(
        sys.executable, "-m", "diagnostics", "capture", observed_once.monitor,
        "--kind", "tracemalloc", "--seconds", "0.5", "--force", "-o", tmp_path / "out",
    )  # fmt: skip
    assert command.process.wait(60) == 0, command.output
    (profile,) = (tmp_path / "out").glob("*/profile.json")
    assert str(profile) in command.output.replace("\n", "")
    wrong = launch(sys.executable, "-m", "diagnostics", "capture", observed_once.monitor, "--kind", "x")
    assert wrong.process.wait(60) == 2
    assert "one of memray, tracemalloc" in wrong.output
