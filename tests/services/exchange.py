"""What clients do with a service: ask once, hold streams open, ask again and again."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .running import READY_SECONDS, Failed, Running
from .service import Request

_TIMEOUT_SECONDS = 40.0
_CLIENTS = 4


def ask(running: Running, request: Request, seconds: float = 0.0) -> None:
    """One request, read to its end. Raises Failed where the answer is another than the table says."""
    if request.command:
        _command(running, request, seconds)
        return
    with _sent(running, request) as response:
        response.read()


def wait_until_ready(running: Running) -> None:
    """Until the service has answered. Raises Failed where it ends before, or is too late."""
    deadline = running.began + READY_SECONDS
    if running.observed:
        running.monitor = _first_line(running, deadline)
    last = "it has not accepted a connection"
    while True:
        if running.process.poll() is not None:
            raise Failed(f"it ended with {running.process.returncode} at its start: {running.tail()}")
        try:
            if running.service.ready:
                _wait_for_line(running)
            ask(running, running.service.ask)
            break
        except (OSError, Failed, http.client.HTTPException) as error:
            last = f"{type(error).__name__}: {error}"
        if time.monotonic() > deadline:
            raise Failed(f"no answer within {READY_SECONDS:.0f} s ({last}); it printed: {running.tail()}")
        time.sleep(0.05)
    running.seconds["ready"] = time.monotonic() - running.began


def _first_line(running: Running, deadline: float) -> str:
    """The monitor's address: the first line of standard error."""
    while "\n" not in (text := running.stderr):
        if running.process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"`diagnostics run` did not say where its monitor is: {running.tail()}")
        time.sleep(0.02)
    line = text.splitlines()[0]
    if not line.startswith("diagnostics http://"):
        raise Failed(f"the first line of standard error is not the monitor's address but {line!r}")
    return line.split()[1].removesuffix("/debug/memory")


def _wait_for_line(running: Running) -> None:
    if not re.search(running.service.ready, running.stdout + running.stderr, re.MULTILINE):
        raise Failed(f"no line of its output matches {running.service.ready!r}")


@contextlib.contextmanager
def _sent(running: Running, request: Request) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=_TIMEOUT_SECONDS)
    with contextlib.closing(connection):
        headers = dict(request.headers)
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(request.method, request.path, request.payload(), headers)
        with contextlib.closing(connection.getresponse()) as response:
            if response.status != request.status:
                raise Failed(f"{request.method} {request.path}: {response.status} {response.read()[:300]!r}")
            yield response


def _command(running: Running, request: Request, seconds: float) -> None:
    places = {"{bin}": str(running.environment / "bin"), "{apps}": str(running.service.apps), "{seconds}": str(seconds)}
    words = list(request.command)
    for name, value in places.items():
        words = [word.replace(name, value) for word in words]
    variables = {"PYTHONPATH": str(running.service.apps), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        words, cwd=running.folder, env=variables, capture_output=True, encoding="utf-8", timeout=seconds + _TIMEOUT_SECONDS,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"{' '.join(words)}: exit code {done.returncode}: {done.stderr[-500:]}")


@contextlib.contextmanager
def streams(running: Running, request: Request, count: int) -> Iterator[None]:
    """`count` streams of which something has arrived, open until the block ends. They are not read on: the little that they
    send meanwhile waits in the kernel."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            response = stack.enter_context(_sent(running, request))
            if request.status == 200 and not response.read1(1000):
                raise Failed(f"{request.path}: the stream ended before its first event")
        yield


@dataclass
class Load:
    """What a load came to; `errors` are the first few of the requests that failed."""

    done: int = 0
    failed: int = 0
    error: str = ""


@contextlib.contextmanager
def load(
    running: Running, request: Request, seconds: float, clients: int = _CLIENTS, pause: float = 0.0
) -> Iterator[Load]:
    """Clients that ask again and again beside the block, for at most `seconds`; the block's end ends them too."""
    came_to, stopping, lock = Load(), threading.Event(), threading.Lock()
    until = time.monotonic() + seconds

    def client() -> None:
        while not stopping.is_set() and time.monotonic() < until:
            try:
                ask(running, request, max(0.0, min(5.0, until - time.monotonic())))
                with lock:
                    came_to.done += 1
            except (OSError, Failed, http.client.HTTPException, subprocess.TimeoutExpired) as error:
                with lock:
                    came_to.failed += 1
                    came_to.error = came_to.error or f"{type(error).__name__}: {error}"
                stopping.wait(0.2)
            stopping.wait(pause)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield came_to
    finally:
        stopping.set()
        for thread in threads:
            thread.join(_TIMEOUT_SECONDS)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def monitor(running: Running, path: str, body: Any = None, timeout: float = 20.0) -> Answer:
    """One request of the monitor; an error status is an answer."""
    request = urllib.request.Request(
        running.monitor + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Accept": "application/json", "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())
