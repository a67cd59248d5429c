"""Who is measured. Each peer is a process on RELAY_CORE that relays POST /v1/chat/completions to the upstream."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from .processes import RELAY_CORE, ROOT, Started, free_port, started, wait_for_port
from .traffic import Traffic

HERE = Path(__file__).parents[1]
CHAT = "/v1/chat/completions"


@dataclass
class Serving:
    """A peer that serves. `monitor` is the URL of the relay's metrics."""

    process: Started
    url: str
    monitor: str | None = None
    service_name: str | None = None

    @property
    def pid(self) -> int:
        return self.process.pid


Peer = Callable[[Traffic, Path], AbstractContextManager[Serving]]


def python_peer(module: str) -> Peer:
    """An ASGI app of the folder `peers`, under uvicorn with uvloop and httptools."""

    @contextlib.contextmanager
    def serve(traffic: Traffic, folder: Path) -> Iterator[Serving]:
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


def relay_peer(checkout: Path = ROOT, name: str = "relay") -> Peer:
    """The relay as it comes, with everything on: ledger, metrics, flight recorder, limits, and traces to a collector."""

    @contextlib.contextmanager
    def serve(traffic: Traffic, folder: Path) -> Iterator[Serving]:
        with tempfile.TemporaryDirectory(dir=folder) as private:
            command, env = relay_command(checkout, traffic.upstream_url, traffic.collector_url, Path(private), name)
            command += ["--diagnostics", "127.0.0.1:0"]
            with started(command, RELAY_CORE, env, cwd=Path(private)) as process:
                url = process.line("relay ") + CHAT
                monitor = process.line("diagnostics ").removesuffix("/debug/memory")
                yield Serving(process, url, monitor, service_name=name)

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
def nginx_peer(traffic: Traffic, folder: Path) -> Iterator[Serving]:
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
            f' proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }} }}'
        )
        with started(["nginx", "-c", str(config)], RELAY_CORE) as process:
            wait_for_port(port, process)
            yield Serving(process, f"http://127.0.0.1:{port}{CHAT}")


PEERS: dict[str, Peer] = {
    "bare": python_peer("bare"),
    "relay": relay_peer(),
    "sdk": python_peer("sdk"),
    "sdk_otel": python_peer("sdk_otel"),
    "nginx": nginx_peer,
}


def peer_named(name: str) -> Peer:
    """One of PEERS, or `relay@DIR`, the relay of another checkout."""
    kind, _, folder = name.partition("@")
    if kind == "relay" and folder:
        checkout = Path(folder).resolve()
        if not (checkout / "relay/__main__.py").exists():
            raise SystemExit(f"{checkout} is no checkout of the relay")
        return relay_peer(checkout, "relay-other")
    if name not in PEERS:
        raise SystemExit(f"{name!r} is not a peer; there are {', '.join(PEERS)} and relay@DIR")
    return PEERS[name]
