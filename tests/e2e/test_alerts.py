"""Each alert fires in the trouble that it is for, and no other does: services in trouble, scraped by a real Prometheus.

The rules are those of dashboards/alerts.yaml with their durations made seconds; the expressions and their thresholds stay. That
the real durations are kept is the rule tests' to prove (alerts_test.yaml), and test_prometheus.py has the alerts on a relay
whose clients, room or first upstream are the trouble. One Prometheus scrapes all services side by side.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import socket
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.needs("prometheus", "prometheus"), pytest.mark.timeout(900)]

HERE = Path(__file__).parent
RULES = HERE.parents[1] / "dashboards" / "alerts.yaml"
# Some scrapes are late on a busy machine; a window has several in it all the same.
WINDOW, HOLDS = "10s", "2s"
PATIENCE = 110.0
# A memory limit as a container has it, half of it reached within a minute.
LIMIT_BYTES = 240 * 2**20


@dataclass
class Clients:
    """Clients on threads, all of which leave with the block."""

    over: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def stay(self, url: str, clients: int = 1) -> None:
        """Open streams and read nothing more of them."""
        for _ in range(clients):
            self._run(lambda: self._visit(url, self.over.wait))

    def come_and_go(self, url: str, seconds: float) -> None:
        """One stream after the other, each left or over after `seconds`."""

        def again() -> None:
            while not self.over.is_set():
                self._visit(url, lambda: self.over.wait(seconds))

        self._run(again)

    def post(self, url: str, body: bytes, seconds: float) -> None:
        """Post the same again and again."""

        def again() -> None:
            while not self.over.wait(seconds):
                request = urllib.request.Request(url, body, {"Content-Type": "text/plain"})
                with urllib.request.urlopen(request, timeout=60) as answer:
                    answer.read()

        self._run(again)

    def _run(self, call: Callable[[], object]) -> None:
        self.threads.append(threading.Thread(target=call))
        self.threads[-1].start()

    @staticmethod
    def _visit(url: str, stay: Callable[[], object]) -> None:
        parts = urllib.parse.urlsplit(url)
        with contextlib.closing(socket.create_connection((parts.hostname, parts.port), timeout=60)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            connection.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            connection.recv(1)
            stay()


@pytest.fixture
def clients() -> Iterator[Clients]:
    found = Clients()
    yield found
    found.over.set()
    for thread in found.threads:
        thread.join(60)


@pytest.fixture
def cgroup(memory_cgroup: Callable[[int], Path | None]) -> Path | None:
    return memory_cgroup(LIMIT_BYTES)


@pytest.fixture
def troubled(
    launch: Callable[..., Any], tmp_path: Path, free_port: Callable[[], int]
) -> Callable[..., tuple[str, str]]:
    """Starts the service of troubled/app.py under `diagnostics run`: (its URL, its monitor's address)."""

    def start(name: str, cgroup: Path | None = None) -> tuple[str, str]:
        port = free_port()
        serve = f"exec {sys.executable} -m uvicorn app:ledger --port {port} --no-access-log"
        enter = f"echo $$ > {cgroup}/cgroup.procs && " if cgroup else ""
        service = launch(
            sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", "sh", "-c", enter + serve,
            env={"DIAGNOSTICS_DIR": str(tmp_path / name)}, cwd=HERE / "troubled",
        )  # fmt: skip
        return f"http://127.0.0.1:{port}", service.wait_for("diagnostics http").split()[1].split("/")[2]

    return start


@pytest.fixture
def dropping(launch: Callable[..., Any], tmp_path: Path) -> tuple[str, str]:
    """A relay whose slow subscribers lose the oldest events: (its URL, its monitor's address)."""
    relay = launch(
        sys.executable, "-m", "relay", "serve", "--port", "0", "--diagnostics", "127.0.0.1:0",
        env={
            "DIAGNOSTICS_DIR": str(tmp_path / "dropping"), "RELAY_SUBSCRIBER_POLICY": "drop_oldest",
            "RELAY_WRITE_TIMEOUT_SECONDS": "600",
        },
        cwd=tmp_path,
    )  # fmt: skip
    return relay.wait_for("relay http").split()[1], relay.wait_for("diagnostics http").split()[1].split("/")[2]


@pytest.fixture
def collector() -> Iterator[str]:
    """What a Collector tells of itself while its backend is away, by the names that it has: there is none to start here."""
    began = time.monotonic()

    class Told(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lost = int(40 * (time.monotonic() - began))
            body = (
                "# TYPE otelcol_exporter_enqueue_failed_spans_total counter\n"
                f'otelcol_exporter_enqueue_failed_spans_total{{exporter="otlp_grpc/jaeger"}} {lost}\n'
                "# TYPE otelcol_exporter_queue_capacity gauge\n"
                'otelcol_exporter_queue_capacity{exporter="elasticsearch"} 1000\n'
                "# TYPE otelcol_exporter_queue_size gauge\n"
                'otelcol_exporter_queue_size{exporter="elasticsearch"} 801\n'
            )
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Told) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def quick(rules: str) -> str:
    """The rules with windows, offsets and patience of seconds."""
    rules, windows = re.subn(r"(?<=\[)\d+m(?=\])|(?<=offset )\d+m", WINDOW, rules)
    rules, patience = re.subn(r"for: \d+m", f"for: {HOLDS}", rules)
    # What is worth being told of half an hour's growth would be a tenth of a mebibyte in such a window: an import.
    rules, extrapolated = re.subn(r"\* 1800 > 33554432", f"* {WINDOW[:-1]} > {8 * 2**20}", rules)
    assert extrapolated == 1
    assert windows > 15
    assert patience == rules.count("- alert:")
    return rules


@pytest.fixture
def firing(
    launch: Callable[..., Any], http: Callable[..., Any], free_port: Callable[[], int], tmp_path: Path
) -> Callable[[dict[str, str]], Callable[[], set[tuple[str, str]]]]:
    """Starts a Prometheus that scrapes these addresses by job; gives what asks it for the (job, alert) that fire now."""

    def start(targets: dict[str, str]) -> Callable[[], set[tuple[str, str]]]:
        (tmp_path / "alerts.yaml").write_text(quick(RULES.read_text(encoding="utf-8")), encoding="utf-8")
        scrapes = [{"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(tmp_path / "alerts.yaml")],
            "scrape_configs": scrapes,
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")  # YAML is a superset of it
        address = f"127.0.0.1:{free_port()}"
        launch(
            "prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address={address}", cwd=tmp_path,
        ).wait_for("Server is ready")  # fmt: skip

        def ask() -> set[tuple[str, str]]:
            alerts = http(f"http://{address}/api/v1/alerts").json()["data"]["alerts"]
            return {
                (alert["labels"]["job"], alert["labels"]["alertname"]) for alert in alerts if alert["state"] == "firing"
            }

        return ask

    return start


@pytest.mark.long
def test_each_trouble_fires_its_alerts_and_no_other(
    cgroup: Path | None, troubled: Callable[..., tuple[str, str]], dropping: tuple[str, str], collector: str,
    firing: Callable[[dict[str, str]], Callable[[], set[tuple[str, str]]]], clients: Clients,
    eventually: Callable[..., Any],
) -> None:  # fmt: skip
    services = {name: troubled(name) for name in ("blocks", "buffers", "closes-late")}
    services |= {"keeps": troubled("keeps", cgroup), "drops": dropping}
    for url, _ in services.values():
        address = urllib.parse.urlsplit(url)
        eventually(lambda address=address: _listens(address.hostname, address.port), 30.0, f"{url} to listen")
    asked = firing({job: monitor for job, (_, monitor) in services.items()} | {"collector": collector})

    for job in ("blocks", "buffers"):
        clients.stay(f"{services[job][0]}/{job}")
    for _ in range(4):
        clients.come_and_go(f"{services['closes-late'][0]}/closes-late", 0.5)
    clients.stay(f"{services['keeps'][0]}/waits", 20)  # that streams leave something behind is not that there are more
    clients.come_and_go(f"{services['keeps'][0]}/keeps", 0.33)
    topic = f"{dropping[0]}/v1/topics/feed"
    clients.stay(topic)
    clients.post(topic, b"x" * 30_000, 0.02)

    wanted = {
        ("blocks", "EventLoopLag"),
        ("buffers", "StreamBufferedBytesGrowing"),
        ("closes-late", "StreamUpstreamsNotClosed"),
        ("keeps", "MemoryGrowsPerStream"),
        ("keeps", "MemoryVerdict"),
        ("drops", "StreamEventsDropped"),
        ("collector", "TelemetryQueueFull"),
    }
    if cgroup is not None:
        wanted.add(("keeps", "MemoryLimitNear"))
    fired: set[tuple[str, str]] = set()

    def all_fired() -> bool:
        fired.update(asked())
        return fired >= wanted

    eventually(all_fired, PATIENCE, f"these to fire: {wanted}")
    # The verdict on a buffer without a bound is an alarm, too, and may come before the others have all come.
    assert fired - {("buffers", "MemoryVerdict")} == wanted


def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection((host, port), timeout=60):
        return True
    return False
