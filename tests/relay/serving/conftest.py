"""Real relays: `python -m relay serve` as a process, with the simulator that it starts as its upstream."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from diagnostics.proof.subjects.processes import free_port
from tests.otlp import Collector

START_SECONDS = 90
# Settings and proxies of whoever runs the tests are not the tests'.
FOREIGN = ("RELAY_", "DIAGNOSTICS_", "OTEL_", "OPENAI_")


@dataclass
class Served:
    """A relay process. `upstream` is the base URL that it announced, of its simulator where it has one."""

    process: subprocess.Popen[str]
    lines: list[str]
    stderr: Path
    url: str = field(init=False)
    upstream: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = self.lines[0].split()[1]
        self.upstream = self.lines[-1].split()[1]

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def stats(self) -> dict[str, Any]:
        """What the simulator has done so far."""
        with urllib.request.urlopen(self.upstream.removesuffix("/v1") + "/simulator/stats") as answer:
            return dict(json.load(answer))

    def log(self) -> str:
        return self.stderr.read_text(encoding="utf-8")

    def endings(self, **wanted: Any) -> list[dict[str, Any]]:
        """The log's lines of streams that have ended, those with these fields."""
        logged = [json.loads(line) for line in self.log().splitlines(keepends=True) if line.endswith("}\n")]
        return [
            line
            for line in logged
            if line["message"] == "stream ended" and all(line.get(name) == value for name, value in wanted.items())
        ]

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def chat(self, model: str, *, stream: bool = True, **more: Any) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream, **more}
        return self.ask("POST", "/v1/chat/completions", json.dumps(body).encode(), {})

    def ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        if body is not None and "Content-Type" not in headers:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())

    def open(self, model: str, *, stream: bool = True, traceparent: str = "") -> socket.socket:
        """A raw connection on which a chat completion was asked for."""
        connection = socket.create_connection(self.address, timeout=60)
        body = json.dumps({"model": model, "messages": [], "stream": stream}).encode()
        more = f"traceparent: {traceparent}\r\n" if traceparent else ""
        connection.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return connection

    def terminate(self, timeout: float = 60) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        return dict(json.loads(self.body)["error"])

    @property
    def events(self) -> list[str]:
        """The data of each event, in a body of single-line events."""
        return [
            line.removeprefix("data: ")
            for block in self.body.decode().split("\n\n")
            for line in block.split("\n")
            if line.startswith("data: ")
        ]


Start = Callable[..., Served]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**kept, "NO_PROXY": "127.0.0.1", **more}


class Relays:
    """Starts relays and ends them all, by their own process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._served: list[Served] = []

    def start(self, *flags: str, announced: int = 3, program: str = "", **settings: str) -> Served:
        """Start one by `python -m relay serve`, or by another program that takes the same words and prints the same lines."""
        stderr = self._folder / f"stderr-{len(self._served)}"
        with stderr.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, *(("-c", program) if program else ("-m", "relay")), "serve", "--port", "0", *flags],
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                cwd=self._folder,  # where no .env is
                env=environment(DIAGNOSTICS_DIR=str(self._folder / "d"), **settings),
            )
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(announced)]
        assert lines[-1].startswith("upstream "), (lines, stderr.read_text(encoding="utf-8"))
        served = Served(process, lines, stderr)
        self._served.append(served)
        return served

    def end(self) -> None:
        for served in self._served:
            if served.process.poll() is None:
                served.process.terminate()
                served.process.wait(60)
            assert served.process.stdout is not None
            served.process.stdout.close()


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The relay that most tests share; what they leave open, they leave to the next test."""
    relays = Relays(tmp_path_factory.mktemp("r"))
    try:
        yield relays.start(
            "--diagnostics", "127.0.0.1:0", "--read-timeout-seconds", "1", "--max-request-bytes", "200000",
            "--log-level", "debug",
        )  # fmt: skip
    finally:
        relays.end()


@pytest.fixture(scope="module")
def start_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """As `start`, for relays that the tests of a module share."""
    relays = Relays(tmp_path_factory.mktemp("r"))
    try:
        yield relays.start
    finally:
        relays.end()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts relays of the test's own: `start(*flags, announced=2, **environment)`."""
    relays = Relays(tmp_path)
    try:
        yield relays.start
    finally:
        relays.end()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    def wait(holds: Callable[[], bool], seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < until, "it did not come true"
            time.sleep(0.02)

    return wait


@pytest.fixture(name="free_port")
def unused_port() -> int:
    """A port that nothing listens on, nor will by chance."""
    return free_port()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A receiver of OTLP, for OTEL_EXPORTER_OTLP_ENDPOINT."""
    with contextlib.closing(Collector()) as running:
        yield running
