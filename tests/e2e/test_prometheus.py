"""A relay under load, scraped by a real Prometheus that has our rules: every panel and every rule is evaluated by it.

What PromQL means is decided there and nowhere else; the tests of the dashboards only read names.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dashboards.queries import PENDING
from diagnostics.fleet.targets import resolve
from diagnostics.monitor.web.metrics import METRICS

pytestmark = [pytest.mark.e2e, pytest.mark.needs("prometheus", "prometheus"), pytest.mark.timeout(900)]

FOLDER = Path(__file__).parents[2] / "dashboards"
# What Grafana puts in for its variables. The window is four scrapes and a bit.
VARIABLES = {"$job": "relay", "$instance": ".+", "$__rate_interval": "5s"}
# Queries that rightly have no answer on a healthy relay, by what they are about.
ABSENT_WHEN_WELL = (
    "stream_dropped_events_total",
    "stream_rejected_total",
    "stream_budget_bytes",
    "stream_kept_bytes",  # where no streams are kept for clients that come back
    "events_out_total",  # where no destination of events is set
    "events_out_waiting",
    "events_out_waiting_bytes",
    "limits_shared_up",  # where limits are not shared
    "limits_shared_questions_total",
    "buffer_pool_segments",  # where nothing is read ahead
    "buffer_pool_misses_total",
    "memory_limit_bytes",  # where no cgroup above the worker has a limit
    "memory_seconds_to_limit",
    "diagnostics_captures_total",  # where nobody took one yet
    "diagnostics_capture_seconds",
    "diagnostics_rule_firings_total",
    "diagnostics_profile_pushes_total",  # where live heaps are pushed nowhere
    "diagnostics_rule_actions_total",
)
EXPORTED = {spec.name for spec in METRICS}


@dataclass
class Stack:
    """A relay, its monitor and the Prometheus that scrapes it; `ask` returns an API answer's data."""

    relay: Any
    url: str
    monitor: str
    prometheus: str
    ask: Callable[..., Any]

    def query(self, expr: str) -> list[Any]:
        return list(self.ask("query", query=expr)["result"])


def config(target: str) -> str:
    scrape = {"job_name": "relay", "static_configs": [{"targets": [target]}]}
    return json.dumps(  # YAML is a superset of it
        {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(FOLDER / "alerts.yaml")],
            "scrape_configs": [scrape],
        }
    )


@pytest.fixture
def stacked(
    launch: Callable[..., Any], http: Callable[..., Any], free_port: Callable[[], int],
    eventually: Callable[..., Any], tmp_path: Path,
) -> Callable[..., Stack]:  # fmt: skip
    """Starts a relay with these flags and settings, its monitor, and a Prometheus with these features that scrapes it."""

    def start(*flags: str, features: str = "exemplar-storage", **settings: str) -> Stack:
        relay = launch(
            sys.executable, "-m", "relay", "serve", "--port", "0", "--diagnostics", "127.0.0.1:0", *flags,
            env={
                "DIAGNOSTICS_DIR": str(tmp_path / "d"),
                "DIAGNOSTICS_EGRESS_URL": f"file://{tmp_path}/evidence",  # its series are there where it is on
                # Traced, so that there are exemplars; nobody needs to receive the traces.
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
                **settings,
            },
            cwd=tmp_path,
        )  # fmt: skip
        url = relay.wait_for("relay http").split()[1]
        monitor = relay.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
        (tmp_path / "prometheus.yml").write_text(config(monitor.removeprefix("http://")), encoding="utf-8")
        address = f"127.0.0.1:{free_port()}"
        launch(
            "prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address={address}", f"--enable-feature={features}", cwd=tmp_path,
        ).wait_for("Server is ready")  # fmt: skip

        def ask(path: str, **parameters: str) -> Any:
            answer = http(f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}").json()
            assert answer["status"] == "success", f"{path} {parameters}: {answer.get('error')}"
            return answer["data"]

        found = Stack(relay, url, monitor, f"http://{address}", ask)
        eventually(lambda: found.query("diagnostics_agent_up == 1"), what="a scrape of a relay that answers")
        return found

    return start


@pytest.fixture
def stack(stacked: Callable[..., Stack]) -> Stack:
    return stacked()


@pytest.fixture
def load(stack: Stack) -> Iterator[None]:
    """Load until the test ends."""
    with loaded(stack.url):
        yield


@contextmanager
def loaded(url: str) -> Iterator[None]:
    """Streams, one after the other, and clients that leave in the middle of one, until the block ends."""
    over = threading.Event()
    parts = urllib.parse.urlsplit(url)

    def stream(model: str, *, leaves: bool) -> None:
        with closing(socket.create_connection((parts.hostname, parts.port), timeout=60)) as connection:
            connection.sendall(f"GET /stream?prompt=x&model={model} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            while connection.recv(65536):
                if leaves:
                    return

    def run() -> None:
        while not over.wait(0.05):
            stream("sim:events=10,pace=0,first=0", leaves=False)
            stream("sim:events=100,pace=50,first=0", leaves=True)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)
    assert not thread.is_alive()


def panels() -> Iterator[tuple[str, str, bool]]:
    """(where, expression, whether traces are asked for) of every query of every dashboard, variables filled in."""
    for path in sorted(FOLDER.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        for panel in document["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']}", filled(target["expr"]), target["exemplar"]
        for annotation in document["annotations"]["list"]:
            yield f"{path.stem}: {annotation['name']}", filled(annotation["expr"]), False


def filled(expr: str) -> str:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr
    return expr


def answerable(expr: str) -> bool:
    """Whether a healthy relay exports all that the expression is about."""
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"([a-z_]\w*)\{", expr)}
    return not names & (set(PENDING) - EXPORTED) and not names & set(ABSENT_WHEN_WELL)


@pytest.mark.usefixtures("load")
@pytest.mark.long
def test_every_panel_is_answered_and_every_rule_is_evaluated(
    stack: Stack, eventually: Callable[..., Any], http: Callable[..., Any]
) -> None:
    # Counters have been seen to move, and so have the rules that are recorded from them.
    eventually(lambda: stack.query('rate(stream_closed_total{outcome="client_disconnected"}[5s]) > 0'), 30.0, "load")
    eventually(lambda: stack.query("instance_worker:memory_rss_bytes_per_1000_streams:deriv30m"), 30.0, "recordings")
    assert [
        target.url for target in resolve([f'prometheus:{stack.prometheus}?diagnostics_agent_up{{job="relay"}}'])
    ] == [stack.monitor]
    asked = list(panels())
    unanswered = {where for where, expr, _ in asked if not stack.query(expr) and answerable(expr)}
    # A scrape may just have been late, and a window of five seconds empty.
    retried = [(where, expr) for where, expr, _ in asked if where in unanswered]
    for where, expr in retried:
        eventually(lambda expr=expr: stack.query(expr), what=f"an answer for {where}: {expr}")
    assert sum(answerable(expr) for _, expr, _ in asked) > 25
    now = str(time.time() + 60)
    for where, expr, exemplar in asked:
        if exemplar:
            (found, *_) = eventually(
                lambda expr=expr: stack.ask("query_exemplars", query=expr, start="0", end=now),
                what=f"traces for {where}",
            )
            assert re.fullmatch("[0-9a-f]{32}", found["exemplars"][0]["labels"]["trace_id"])

    groups = eventually(
        lambda: (
            all(rule["health"] != "unknown" for group in stack.ask("rules")["groups"] for rule in group["rules"])
            and stack.ask("rules")["groups"]
        ),
        what="an evaluation of every rule",
    )
    rules = [rule for group in groups for rule in group["rules"]]
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    assert len(rules) > 15

    # promtool's linter reads the exposition as Prometheus does: help, types, units and suffixes.
    text = http(f"{stack.monitor}/metrics").body
    linted = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=250, check=False)
    assert linted.returncode == 0, linted.stderr.decode()


def test_a_prometheus_of_native_histograms_gets_them_and_answers_the_same_questions(
    stacked: Callable[..., Stack], eventually: Callable[..., Any], http: Callable[..., Any]
) -> None:
    native = stacked(features="exemplar-storage,native-histograms")
    rates = [(where, expr) for where, expr, _ in panels() if "histogram_quantile" in expr and answerable(expr)]
    with loaded(native.url):
        for where, expr in rates:
            eventually(lambda expr=expr: native.query(expr), 30.0, f"an answer for {where}: {expr}")
        rules = [rule for group in native.ask("rules")["groups"] for rule in group["rules"]]
        (late,) = [rule["query"] for rule in rules if rule["name"] == "EventLoopLag"]
        eventually(lambda: native.query(re.sub(r"> 0.25", ">= 0", late.replace("[5m]", "[8s]"))), 30.0, late)
    assert len(rates) > 10
    assert native.query('count({__name__=~".+_bucket"})') == []  # classic buckets were not stored, and not missed

    # What both kinds say of the same streams, after the last of them.
    asked = "stream_time_to_first_event_seconds"

    def settled() -> dict[str, float] | None:
        text = http(f"{native.monitor}/metrics").body.decode()
        buckets = dict(
            re.findall(rf'^{asked}_bucket{{le="([^"]+)",route="/stream",[^}}]*}} (\S+)$', text, re.MULTILINE)
        )
        (counted,) = native.query(f'histogram_count({asked}{{route="/stream"}})')
        same = float(counted["value"][1]) == float(buckets["+Inf"])
        return {bound: float(count) for bound, count in buckets.items()} if same else None

    buckets = eventually(settled, 30.0, "a scrape after the last stream")
    for quantile in (0.5, 0.9):
        (told,) = native.query(f'histogram_quantile({quantile}, {asked}{{route="/stream"}})')
        bounds = [0.0, *(float(bound) for bound in buckets)]
        rank = quantile * buckets["+Inf"]
        within = next(index for index, count in enumerate(buckets.values()) if count >= rank)
        # A native bucket may reach beyond the classic one by the width of one bucket.
        assert bounds[within] / 1.1 <= float(told["value"][1]) <= bounds[within + 1] * 1.1
    found = native.ask("query_exemplars", query=asked, start="0", end=str(time.time() + 60))
    assert {one["seriesLabels"]["__name__"] for one in found} == {asked}
    assert all(re.fullmatch("[0-9a-f]{32}", one["exemplars"][0]["labels"]["trace_id"]) for one in found)


def test_a_stopped_relay_is_an_alert(stack: Stack, eventually: Callable[..., Any]) -> None:
    stack.relay.process.send_signal(signal.SIGSTOP)
    try:
        (alert,) = eventually(lambda: stack.ask("alerts")["alerts"], what="an alert")
    finally:
        stack.relay.process.send_signal(signal.SIGCONT)
    assert alert["labels"]["alertname"] == "DiagnosticsAgentDown"
    assert alert["labels"]["worker"] == "0"
    # Its memory is still measured, from outside.
    assert stack.query("memory_rss_bytes > 0")


def test_trouble_is_what_the_alerts_ask_for(
    stacked: Callable[..., Stack], launch: Callable[..., Any], free_port: Callable[[], int],
    eventually: Callable[..., Any], http: Callable[..., Any], tmp_path: Path,
) -> None:  # fmt: skip
    """The first upstream is down, clients do not read, and there is no room for more. How long an alert waits before it fires
    is the rule tests' to prove; here its expression has an answer, over windows of seconds."""
    simulator = launch(sys.executable, "-m", "relay", "simulate", "--port", "0", cwd=tmp_path)
    trouble = stacked(
        "--max-streams", "6", "--upstream-retries", "0", "--breaker-failures", "1", "--breaker-open-seconds", "600",
        "--write-timeout-seconds", "600",
        RELAY_UPSTREAM_BASE_URL=f"http://127.0.0.1:{free_port()}/v1",
        RELAY_FALLBACK_BASE_URLS=simulator.wait_for("simulator http").split()[1],
    )  # fmt: skip
    rules = [rule for group in trouble.ask("rules")["groups"] for rule in group["rules"] if rule["type"] == "alerting"]

    def asked(name: str) -> list[Any]:
        (query,) = [rule["query"] for rule in rules if rule["name"] == name]
        return trouble.query(re.sub(r"\[(5|10)m\]", "[8s]", query))

    wanted = ("StreamBreakerOpen", "StreamSlowClients", "StreamsRejected")
    assert [name for name in wanted if asked(name)] == []
    parts = urllib.parse.urlsplit(trouble.url)
    with ExitStack() as opened:
        for _ in range(6):
            connection = opened.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=60))
            connection.sendall(
                b"GET /stream?prompt=x&model=sim:events=inf,pace=0,size=4000 HTTP/1.0\r\nHost: localhost\r\n\r\n"
            )

        def all_fire() -> bool:
            assert http(f"{trouble.url}/stream?prompt=x").status == 503
            return all(asked(name) for name in wanted)

        eventually(lambda: http(f"{trouble.url}/stream?prompt=x&model=sim:events=1,pace=0").status == 503)
        eventually(all_fire, 60.0, "an answer to each of " + ", ".join(wanted))
    (breaker,) = asked("StreamBreakerOpen")
    assert breaker["metric"]["upstream"] == "0"
    (rejected,) = asked("StreamsRejected")
    assert rejected["metric"]["reason"] == "streams"
