"""What all tests share: real processes that always end, and servers from Debian where they are installed."""

from __future__ import annotations

import contextlib
import gc
import http.client
import itertools
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, settings

from diagnostics.proof.subjects.processes import free_port
from relay.protocol.sse import Event, EventDecoder
from tests.s3 import S3, Gate, gate, serving

ROOT = Path(__file__).parent.parent

AGENT_SOCKET = "dir/agents/4194304.sock"

# How long an example takes is the machine's affair: by itself, hypothesis allows each 200 ms.
settings.register_profile(
    "steady", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None, print_blob=True
)
settings.load_profile("steady")


@pytest.hookimpl(tryfirst=True)  # before pytest looks where temporary folders are to be
def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in its background with these two ignored, and whoever a test interrupts would inherit that.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    # Tests are a thousand clients at once; a shell's limit may be lower than that.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Agents listen in the tests' folders, and a Unix socket's address is 107 bytes at most (unix(7)).
    longest = Path(tempfile.gettempdir(), "pytest-of-" + 16 * "x", "pytest-999", "popen-gw9", 31 * "x", AGENT_SOCKET)
    if config.option.basetemp is None and len(os.fsencode(longest)) > 107:
        config.option.basetemp = tempfile.mkdtemp(prefix="highwater-", dir="/tmp")
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))


@pytest.hookimpl(trylast=True)  # after they are in random order
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Each worker begins with a part of the list, and ends with what it takes from the ends of others' parts. A test of a minute
    # is at the beginning of a part: begun last, all other workers would wait for it.
    parts = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    items[:] = [
        item
        for part in range(parts)
        for item in (*long[part::parts], *others[len(others) * part // parts : len(others) * (part + 1) // parts])
    ]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    # Some thousand tests and all that they import stay: the collector need not walk through them again and again.
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        command, package = marker.args
        is_there = any(Path("/usr/lib").glob(f"*/{command}")) if ".so" in command else shutil.which(command)
        if not is_there:
            reason = f"{command} is not installed; to get it: apt-get install {package}"
            if os.environ.get("CI"):
                pytest.fail(f"{reason} (in CI a missing server is a failure)", pytrace=False)
            pytest.skip(reason)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    # What a test has left open is warned of when it is collected: here, and seldom in the middle of some later test. To collect
    # all that is there would take 40 ms a test; what is young takes half a millisecond.
    gc.collect(1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # From the reports: the tests may have run in other processes than this.
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())]
    for reason in sorted(
        {part for text in skipped for part in re.findall(r"\S+ is not installed; to get it: [\w -]+", text)}
    ):
        terminalreporter.write_line(f"not tested: {reason}")


@dataclass
class Launched:
    """A process under test; its output is in a file, so that no pipe of it can fill up."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, patience: float = 60.0) -> str:
        """The first line of output that contains `text`, whole; fails with all output if the process ends or is late."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            for line in self.output.splitlines(keepends=True):
                if text in line and line.endswith("\n"):
                    return line.rstrip("\n")
            if ended:
                break
            time.sleep(0.02)
        pytest.fail(f"{text!r} did not appear; exit code {self.process.poll()}; output:\n{self.output}")

    def end(self, number: int = signal.SIGTERM, patience: float = 60.0) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(patience)


# Captures that nobody asked for would come between those that a test asks for; tests of theirs ask for them.
NO_LOOKS = {"DIAGNOSTICS_LOOKS_PER_HOUR": "0"}
os.environ.update(NO_LOOKS)  # of processes that a test starts by itself
# What commands print is compared as plain text, whoever runs the tests in whatever terminal.
for _name in ("FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES"):
    os.environ.pop(_name, None)
# About a thousand processes import this checkout: without its bytecode each compiles it again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Starts processes, each in a session of its own, and ends whatever of them is left."""
    started: list[Launched] = []

    def start(*command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Launched:
        log = tmp_path / f"process-{len(started)}.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(env or {}),
                cwd=cwd,
                start_new_session=True,
            )
        started.append(Launched(process, log))
        return started[-1]

    yield start
    for launched in started:
        if launched.process.poll() is None:
            os.killpg(launched.process.pid, signal.SIGKILL)
        launched.process.wait()


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This environment without what would steer a process under test, with this checkout first on its path."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("DIAGNOSTICS_", "RELAY_", "OTEL_"))
    }
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**kept, **NO_LOOKS, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **extra}


@pytest.fixture
def memory_cgroup() -> Iterator[Callable[[int], Path | None]]:
    """Makes a memory cgroup (version 1) with a limit in bytes; None where none can be made. Ask for it before what starts
    processes, so that it goes last: nobody may be in it then."""
    made: list[Path] = []

    def make(limit_bytes: int) -> Path | None:
        folder = Path(f"/sys/fs/cgroup/memory/highwater-test-{os.getpid()}-{len(made)}")
        try:
            folder.mkdir()
        except OSError:
            return None
        made.append(folder)
        (folder / "memory.limit_in_bytes").write_text(str(limit_bytes), encoding="utf-8")
        return folder

    yield make
    for folder in made:
        deadline = time.monotonic() + 60
        while (folder / "cgroup.procs").read_text(encoding="utf-8").strip() and time.monotonic() < deadline:
            time.sleep(0.1)
        folder.rmdir()


@pytest.fixture(name="free_port")
def finding_ports() -> Callable[[], int]:
    """A port that the kernel gives to nobody who asks for any: the monitor beside the service does."""
    return free_port


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@pytest.fixture(name="http")
def asking() -> Callable[..., Answer]:
    """One HTTP request with the standard library; an error status is an answer, too."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(url: str, method: str = "GET", body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        data = json.dumps(body).encode() if isinstance(body, dict | list) else body
        given = {**({"Content-Type": "application/json"} if data is not None else {}), **(headers or {})}
        request = urllib.request.Request(url, data=data, headers=given, method=method)
        try:
            with opener.open(request, timeout=60) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    return ask


class Subscriber(threading.Thread):
    """What EventSource does: reads events and connects again where it was, to the next of `urls`, until `stop`.

    lines     everything that came, `answers` the status of each connection, `events` what was dispatched
    """

    def __init__(
        self, urls: Sequence[str], last_event_id: str | None, headers: Mapping[str, str], *, again: bool
    ) -> None:
        super().__init__(daemon=True)
        self._urls = itertools.cycle(urls)
        self._headers = dict(headers)
        self._again = again
        self._wanted = last_event_id
        self._connection: http.client.HTTPConnection | None = None
        self._stopping = threading.Event()
        self.raw = b""
        self.answers: list[int] = []
        self.events: list[Event] = []
        self.start()

    @property
    def data(self) -> list[str]:
        """Of the events that were published."""
        return [event.data for event in self.events if not event.event.startswith("relay.")]

    def told(self, kind: str) -> list[Any]:
        """What the relay itself said by events of a kind."""
        return [json.loads(event.data) for event in self.events if event.event == f"relay.{kind}"]

    @property
    def last_event_id(self) -> str | None:
        return self._wanted

    def stop(self) -> None:
        self._stopping.set()
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        self.join(60)

    def run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                self._read(next(self._urls))
            if not self._again:
                return
            self._stopping.wait(0.1)

    def _read(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self._connection = connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        with contextlib.closing(connection):
            resume = {"Last-Event-ID": self._wanted} if self._wanted is not None else {}
            connection.request("GET", f"{parts.path}?{parts.query}", headers={**self._headers, **resume})
            with connection.getresponse() as response:
                self.answers.append(response.status)
                if response.status != 200:
                    self.raw += response.read()
                    return
                decoder = EventDecoder(last_event_id=self._wanted or "")
                while chunk := response.read1(65536):
                    self.raw += chunk
                    self.events += decoder.feed(chunk)
                    self._wanted = decoder.last_event_id or None


@pytest.fixture
def subscribe() -> Iterator[Callable[..., Subscriber]]:
    """Subscribes to topics: `subscribe(url, ..., last_event_id=None, headers={}, again=False)`; ends what is left."""
    started: list[Subscriber] = []

    def start(
        *urls: str, last_event_id: str | None = None, headers: Mapping[str, str] | None = None, again: bool = False
    ) -> Subscriber:
        started.append(Subscriber(urls, last_event_id, headers or {}, again=again))
        return started[-1]

    yield start
    for subscriber in started:
        subscriber.stop()


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Calls until the result is true, and returns it."""

    def poll(call: Callable[[], Any], patience: float = 60.0, what: str = "") -> Any:
        deadline = time.monotonic() + patience
        while True:
            result = call()
            if result:
                return result
            if time.monotonic() > deadline:
                pytest.fail(f"not within {patience} s: {what or call}; last: {result!r}")
            time.sleep(0.05)

    return poll


@dataclass
class Service:
    """A service under `diagnostics run`: its own URL, its monitor's, and the supervising process."""

    url: str
    monitor: str
    supervisor: Launched


@pytest.fixture
def observed(launch: Callable[..., Launched], tmp_path: Path) -> Callable[..., Service]:
    """Runs an app, given as source text, by uvicorn under `diagnostics run`, and waits until its agent answers."""

    def run(source: str, *options: str, env: Mapping[str, str] | None = None) -> Service:
        (tmp_path / "service.py").write_text(source, encoding="utf-8")
        port = free_port()
        supervisor = launch(
            sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--",
            sys.executable, "-m", "uvicorn", "service:app", "--port", str(port), "--no-access-log", *options,
            env={"DIAGNOSTICS_DIR": str(tmp_path / "dir"), **(env or {})},
            cwd=tmp_path,
        )  # fmt: skip
        monitor = supervisor.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
        supervisor.wait_for("Uvicorn running")
        return Service(f"http://127.0.0.1:{port}", monitor, supervisor)

    return run


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A real S3 server, one for all tests of a process; each takes a bucket of its own."""
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_gate(s3: S3) -> Iterator[Gate]:
    """The same server behind a gate that can refuse, and be silent."""
    with gate(s3) as before:
        yield before
