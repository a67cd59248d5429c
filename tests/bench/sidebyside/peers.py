"""Who is measured. Each peer is a process on RELAY_CORE that relays POST /v1/chat/completions to the upstream."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from .processes import RELAY_CORE, ROOT, Started, free_port, started, wait_for_port
from .traffic import Traffic

HERE = Path(__file__).parents[1]
CHAT = "/v1/chat/completions"
# More streams than this the relay refuses as it comes: its limits are raised for them.
DEFAULT_ROOM = 2000
GIN_SOURCES = Path("/usr/share/gocode/src/github.com/gin-gonic/gin")


@dataclass
class Serving:
    """A peer that serves. `monitor` is the URL of the relay's metrics, `diagnostics` the folder of its agent's socket."""

    process: Started
    url: str
    monitor: str | None = None
    service_name: str | None = None
    diagnostics: Path | None = None

    @property
    def pid(self) -> int:
        return self.process.pid


# Given the traffic, a folder for its files, and how many streams it must take at once.
Peer = Callable[[Traffic, Path, int], AbstractContextManager[Serving]]


def python_peer(module: str) -> Peer:
    """An ASGI app of the folder `peers`, under uvicorn with uvloop and httptools."""

    @contextlib.contextmanager
    def serve(traffic: Traffic, folder: Path, room: int) -> Iterator[Serving]:
        port = free_port()
        command, env = python_command(module, port, traffic.upstream_url)
        with started(command, RELAY_CORE, env | traces_to(traffic.collector_url, module)) as process:
            wait_for_port(port, process)
            yield Serving(process, f"http://127.0.0.1:{port}{CHAT}", service_name=module)

    return serve


def python_command(module: str, port: int, upstream: str) -> tuple[list[str], dict[str, str]]:
    command = [
        sys.executable, "-m", "uvicorn", f"{module}:app", "--port", str(port), "--loop", "uvloop",
        "--http", "httptools", "--no-access-log", "--log-level", "warning", "--app-dir", str(HERE / "peers"),
    ]  # fmt: skip
    return command, {"UPSTREAM_BASE_URL": upstream}


def relay_peer(checkout: Path = ROOT, name: str = "relay", settings: Mapping[str, str] | None = None) -> Peer:
    """The relay as it comes, with everything on: ledger, metrics, flight recorder, limits, and traces to a collector.

    settings   variables of its environment, which count more than the benchmark's own
    """

    @contextlib.contextmanager
    def serve(traffic: Traffic, folder: Path, room: int) -> Iterator[Serving]:
        with tempfile.TemporaryDirectory(dir=folder) as private:
            command, env = relay_command(checkout, traffic.upstream_url, traffic.collector_url, Path(private), name)
            command += ["--diagnostics", "127.0.0.1:0"]
            if room > DEFAULT_ROOM:
                env |= {
                    "RELAY_MAX_STREAMS": "0",
                    "RELAY_BUDGET_BYTES": "0",
                    "RELAY_UPSTREAM_MAX_CONNECTIONS": str(2 * room),
                }
            with started(command, RELAY_CORE, {**env, **(settings or {})}, cwd=Path(private)) as process:
                url = process.line("relay ") + CHAT
                monitor = process.line("diagnostics ").removesuffix("/debug/memory")
                yield Serving(process, url, monitor, service_name=name, diagnostics=Path(private) / "diagnostics")

    return serve


def relay_command(
    checkout: Path, upstream: str, collector: str, folder: Path, name: str = "relay", port: int = 0
) -> tuple[list[str], dict[str, str]]:
    """The relay of a checkout, by that one's .venv where it has one."""
    own = checkout / ".venv/bin/python"
    python = str(own) if own.exists() and checkout != ROOT else sys.executable
    env = {
        "PYTHONPATH": str(checkout),
        "RELAY_UPSTREAM_BASE_URL": upstream,
        "DIAGNOSTICS_DIR": str(folder / "diagnostics"),
    }
    return [python, "-m", "relay", "serve", "--port", str(port)], env | traces_to(collector, name)


def traces_to(collector: str, name: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_SERVICE_NAME": name,
        # Spans leave within a round, not only at its end.
        "OTEL_BSP_SCHEDULE_DELAY": "1000",
    }


@contextlib.contextmanager
def nginx_peer(traffic: Traffic, folder: Path, room: int) -> Iterator[Serving]:
    """A proxy_pass without buffering."""
    port = free_port()
    with tempfile.TemporaryDirectory(dir=folder) as private:
        config = Path(private) / "nginx.conf"
        config.write_text(
            f"daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {private}/pid;"
            f"error_log {private}/error.log; events {{ worker_connections 20000; }}"
            f"http {{ access_log off; client_body_temp_path {private}/b; proxy_temp_path {private}/p;"
            f" fastcgi_temp_path {private}/f; uwsgi_temp_path {private}/u; scgi_temp_path {private}/s;"
            f" server {{ listen 127.0.0.1:{port} backlog=4096; location /v1/ {{ proxy_pass {traffic.upstream_url}/;"
            f' proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }} }}',
            encoding="utf-8",
        )
        with started(["nginx", "-c", str(config)], RELAY_CORE) as process:
            wait_for_port(port, process)
            yield Serving(process, f"http://127.0.0.1:{port}{CHAT}")


def go_peer(program: Callable[[Traffic, Path], list[str]]) -> Peer:
    """A program that prints `relay URL` once it listens. One core is all it has, and Go is told."""

    @contextlib.contextmanager
    def serve(traffic: Traffic, folder: Path, room: int) -> Iterator[Serving]:
        command = [*program(traffic, folder), "-upstream", traffic.upstream_url]
        with started(command, RELAY_CORE, {"GOMAXPROCS": "1"}) as process:
            yield Serving(process, process.line("relay ") + CHAT)

    return serve


def gin_program(_: Traffic, folder: Path) -> list[str]:
    """Built from Debian's sources of Gin."""
    program = folder / "gin"
    if not program.exists():
        env = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GIN_SOURCES.parents[3])}
        subprocess.run(["go", "build", "-o", str(program), "."], cwd=HERE / "peers/gin", env=env, check=True)
    return [str(program)]


PEERS: dict[str, Peer] = {
    "nginx": nginx_peer,
    "go": go_peer(lambda traffic, _: [traffic.program, "raw"]),
    "gin": go_peer(gin_program),
    "bare": python_peer("bare"),
    "relay": relay_peer(),
    "httpx2": python_peer("httpx2_raw"),
    "sdk": python_peer("sdk"),
    "sdk_otel": python_peer("sdk_otel"),
}
TITLES = {
    "nginx": "nginx, buffering off",
    "go": "Go, raw copy",
    "gin": "Go, Gin tutorial relay",
    "bare": "bare ASGI + aiohttp, no features",
    "relay": "**Highwater's relay, everything on**",
    "httpx2": "FastAPI + httpx2, raw bytes",
    "sdk": "FastAPI + openai SDK, chunk by chunk",
    "sdk_otel": "the same with OpenTelemetry and prometheus-client",
    "litellm": "LiteLLM proxy",
}


def missing(name: str) -> str | None:
    """What a peer lacks to be measured here, and how to get it."""
    if name == "nginx" and shutil.which("nginx") is None:
        return "apt-get install nginx"
    if name == "gin" and not GIN_SOURCES.exists():
        return "apt-get install golang-github-gin-gonic-gin-dev"
    return None


def peer_named(name: str) -> Peer:
    """One of PEERS; or `relay@DIR`, the relay of another checkout; or `relay NAME=VALUE ...`, a relay with these settings."""
    if name.startswith("relay "):
        return relay_peer(ROOT, "relay-other", dict(word.split("=", 1) for word in name.split()[1:]))
    kind, _, folder = name.partition("@")
    if kind == "relay" and folder:
        checkout = Path(folder).resolve()
        if not (checkout / "relay/__main__.py").exists():
            raise SystemExit(f"{checkout} is no checkout of the relay")
        return relay_peer(checkout, "relay-other")
    if name not in PEERS:
        raise SystemExit(f"{name!r} is not a peer; there are {', '.join(PEERS)} and relay@DIR")
    return PEERS[name]
