"""Every capture, route and documented example, on the relay itself while it relays."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from diagnostics.monitor.captures.kinds import KINDS

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).parents[2] / "docs" / "captures.md"
STREAMS = 10


class Loaded:
    """A relay with open streams that go on until the test ends."""

    def __init__(self, relay: str, monitor: str) -> None:
        self.relay = relay
        self.monitor = monitor
        self._ending = threading.Event()
        self._readers = [threading.Thread(target=self._read) for _ in range(STREAMS)]

    def __enter__(self) -> Self:
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for reader in self._readers:
            reader.join()

    def _read(self) -> None:
        host, port = self.relay.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(
                b"GET /stream?prompt=x&model=sim:events=inf,pace=20,first=0 HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            while not self._ending.is_set() and client.recv(65536):
                pass


@pytest.fixture
def loaded(launch: Any, http: Any, eventually: Any, tmp_path: Path) -> Iterator[Loaded]:
    process = launch(
        sys.executable, "-m", "relay", "serve", "--port", "0", "--diagnostics", "127.0.0.1:0",
        env={"DIAGNOSTICS_DIR": str(tmp_path / "dir")},
    )  # fmt: skip
    relay = process.wait_for("relay http").split()[1]
    monitor = process.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
    with Loaded(relay, monitor) as running:
        eventually(lambda: workers(http, monitor) and workers(http, monitor)[0]["ledger"]["open"] == STREAMS)
        yield running
    assert process.end() == 0


def workers(http: Any, monitor: str) -> list[Any]:
    found: list[Any] = http(f"{monitor}/debug/memory", headers={"Accept": "application/json"}).json()["workers"]
    return [worker for worker in found if worker["ledger"]]


def taken(http: Any, eventually: Any, monitor: str, **options: Any) -> Any:
    answer = http(f"{monitor}/debug/memory/captures", "POST", {"seconds": 1, "force": True, **options})
    assert answer.status == 202, answer.body
    url = monitor + answer.headers["Location"]
    capture = eventually(lambda: (now := http(url).json())["state"] in ("done", "failed") and now, patience=60)
    assert capture["state"] == "done", capture["error"]
    assert capture["artifacts"]
    for artifact in capture["artifacts"]:
        assert len(http(f"{url}/artifacts/{artifact['name']}").body) == artifact["bytes"]
    return capture


@pytest.mark.timeout(900)
@pytest.mark.long
def test_every_kind_is_taken_while_streams_run_and_all_of_them_go_on(
    loaded: Loaded, http: Any, eventually: Any
) -> None:
    captures = {kind: taken(http, eventually, loaded.monitor, kind=kind) for kind in KINDS if kind != "bundle"}
    assert captures["retained"]["result"]["total_count"] >= STREAMS
    again = taken(http, eventually, loaded.monitor, kind="tasks")
    url = f"{loaded.monitor}/debug/memory/captures/{again['id']}/diff/{captures['tasks']['id']}"
    for form in ("json", "html", "text", "pprof"):
        assert http(f"{url}?format={form}").status == 200
    (worker,) = workers(http, loaded.monitor)
    assert worker["window"] is None
    assert worker["ledger"]["open"] == STREAMS
    before = worker["ledger"]["routes"]["/stream"]["events_out"]
    eventually(lambda: workers(http, loaded.monitor)[0]["ledger"]["routes"]["/stream"]["events_out"] > before)
    for capture in (*captures.values(), again):
        assert http(f"{loaded.monitor}/debug/memory/captures/{capture['id']}", "DELETE").status == 204


def test_the_routes_answer_while_streams_run(loaded: Loaded, http: Any, eventually: Any) -> None:
    eventually(
        lambda: http(f"{loaded.monitor}/debug/memory/timeline").status == 200
    )  # from the recorder's first second on
    for path in ("balance", "streams", "verdict", "rules", "captures"):
        assert http(f"{loaded.monitor}/debug/memory/{path}").status == 200, path
    assert http(f"{loaded.monitor}/debug/pprof/").status == 200
    for path in (
        "heap?seconds=1&force=1",
        "allocs?seconds=1&force=1",
        "goroutine",
        "goroutine?debug=1",
        "goroutine?debug=2",
    ):
        assert http(f"{loaded.monitor}/debug/pprof/{path}").body, path
    metrics = http(f"{loaded.monitor}/metrics").body.decode()
    assert f'stream_open_connections{{route="/stream",worker="0"}} {STREAMS}.0' in metrics


@pytest.mark.needs("curl", "curl")
@pytest.mark.needs("go", "golang-go")
@pytest.mark.timeout(900)
@pytest.mark.long
def test_the_documented_examples_run(loaded: Loaded, http: Any, eventually: Any, tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    examples = re.findall(r"^    ((?:diagnostics|curl|go) .*)$", text, re.MULTILINE)
    # One asks for a monitor with a token, and opens a prompt.
    examples = [example for example in examples if "$DIAGNOSTICS_TOKEN" not in example]
    assert len(examples) == 4
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "HOME": str(tmp_path), "PPROF_TMPDIR": str(tmp_path), "PATH": path}

    def idle() -> bool:
        captures = http(f"{loaded.monitor}/debug/memory/captures").json()["captures"]
        return all(capture["state"] in ("done", "failed") for capture in captures)

    for example in examples:
        command = re.sub(" +", " ", example).replace("http://127.0.0.1:6060", loaded.monitor)
        # The page shows the plain command; on a machine as busy as this one may be a capture is rightly refused.
        command = command.replace("pprof/heap", "pprof/heap?force=1")
        command = command.replace("--kind memray", "--kind memray --force").replace(
            '"seconds": 5', '"seconds": 1, "force": true'
        )
        done = subprocess.run(
            command, shell=True, check=False, capture_output=True, encoding="utf-8", timeout=800, cwd=tmp_path, env=env
        )
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout
        eventually(idle, patience=60)  # `curl` has its answer when the window is open
    assert list(tmp_path.glob("captures/*/profile.json"))
