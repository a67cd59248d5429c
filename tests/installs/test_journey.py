"""The README's commands, typed by a newcomer in the order in which they stand there: each succeeds.

They are taken from the README's own text and run outside of the checkout, beside a service that does some work. What goes on by
itself is ended as Ctrl-C would, where the next such command or the README's end comes. Only ports are others than in the text.
"""

from __future__ import annotations

import re
import shutil
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import pytest

from tests.installs.environments import ROOT, VERSIONS, Environment, interpreters

# How much of one core the service uses while the README's capture is taken.
SHARE_OF_A_CORE = 0.25
PACE_SECONDS = 0.05
APP = """
import asyncio, time

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

kept = []

async def work(request):
    # A share of a core is the same on every machine: so many seconds of CPU time, of parsing and of allocating.
    end = time.thread_time() + float(request.query_params["seconds"])
    while time.thread_time() < end:
        words = " ".join(str(number) for number in range(50)).split()
    kept.append(words)
    del kept[:-1000]
    return PlainTextResponse("done")

async def stream(request):
    async def events():
        while True:
            yield b"data: {}\\n\\n"
            await asyncio.sleep(0.1)
    return StreamingResponse(events(), media_type="text/event-stream")

app = Starlette(routes=[Route("/work", work), Route("/stream", stream)])
"""
# In the checkout, and neither here: they make an environment there, and are what this test is started by.
SET_UP = {"make demo", "make test"}
GO_ON = {"diagnostics run": "Uvicorn running", "relay serve": "upstream http"}
IN_THE_CHECKOUT = ("pip install", "make ")


def commands_of(readme: str) -> dict[str, list[str]]:
    """Section -> its commands: the lines of indented blocks outside of fences, without comments."""
    found: dict[str, list[str]] = {}
    section, fenced = "", False
    for line in readme.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("    ") and not fenced:
            found.setdefault(section, []).append(re.sub(r"\s+# .*", "", line.strip()))
    return found


COMMANDS = commands_of((ROOT / "README.md").read_text(encoding="utf-8"))
FIRST = ("Install", "Your own service, unchanged")


class Terminal:
    """A newcomer's: one environment, the checkout, the service's folder, and at most one command that goes on."""

    def __init__(
        self, environment: Environment, checkout: Path, start: Callable[..., Any], ports: dict[str, int]
    ) -> None:
        self.environment, self.checkout, self._start, self._ports = environment, checkout, start, ports
        self.going_on: Any = None

    def type(self, command: str) -> None:
        for written, port in self._ports.items():
            command = command.replace(f":{written}", f":{port}")
        waits_for = next((text for begin, text in GO_ON.items() if command.startswith(begin)), None)
        if waits_for is not None:
            self.end()
            variables = {
                "DIAGNOSTICS_LISTEN": f"127.0.0.1:{self._ports['6060']}",
                "RELAY_PORT": str(self._ports["8080"]),
                "UVICORN_PORT": str(self._ports["8000"]),
            }
            self.going_on = self._start(self.environment, "bash", "-c", f"exec {command}", env=variables)
            self.going_on.wait_for(waits_for, patience=90)
            return
        folder = self.checkout if command.startswith(IN_THE_CHECKOUT) else self.environment.folder
        if command.startswith("curl "):
            command = command.replace("curl ", "curl --fail --silent --show-error ", 1)  # an error's page is no success
        done = self.environment.run("bash", "-c", command, cwd=folder, patience=600)
        assert done.returncode == 0, f"{command}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, f"{command}:\n{done.stderr}"
        assert done.stdout or command.startswith("pip"), f"{command} said nothing"

    def end(self) -> None:
        """Ctrl-C, where something goes on."""
        if self.going_on is not None:
            code = self.going_on.end(signal.SIGINT, patience=60)
            assert code in (0, 130), f"ended with {code}:\n{self.going_on.output}"
            assert "Traceback" not in self.going_on.output, self.going_on.output
            self.going_on = None


class Load(threading.Thread):
    """A client that gives the service, whenever it is there, so much work that it uses its share of a core."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._url = f"http://127.0.0.1:{port}/work?seconds={SHARE_OF_A_CORE * PACE_SECONDS}"
        self._over = threading.Event()
        self.answered = 0

    def run(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due, time.monotonic()) + PACE_SECONDS
            try:
                opener.open(self._url, timeout=60).close()
            except OSError:
                continue  # the service has not begun yet, or has ended
            self.answered += 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


Follow = Callable[[str, Iterable[str]], Terminal]


@pytest.fixture
def follow(checkout: Path, start: Any, free_port: Callable[[], int], tmp_path: Path) -> Follow:
    """Types the commands of sections, in an empty environment of a version of Python, beside a service that has work."""

    def typed(version: str, sections: Iterable[str]) -> Terminal:
        environment = Environment.make(interpreters()[version], tmp_path)
        (environment.folder / "app.py").write_text(APP, encoding="utf-8")
        own = shutil.copytree(checkout, tmp_path / "checkout", ignore=shutil.ignore_patterns("dist"))
        ports = {port: free_port() for port in ("6060", "8080", "8000")}
        terminal = Terminal(environment, own, start, ports)
        with Load(ports["8000"]) as clients:
            for section in sections:
                for command in COMMANDS[section]:
                    if command not in SET_UP:
                        terminal.type(command)
            terminal.end()
        assert clients.answered > 20, "the service had nothing to do"
        return terminal

    return typed


def test_the_readme_is_what_these_tests_take_it_for() -> None:
    typed = [command for section in COMMANDS.values() for command in section]
    assert set(typed) >= SET_UP
    for begin in GO_ON:
        assert [command for command in typed if command.startswith(begin)], f"nobody is told to type {begin}"
    captures = [command for command in COMMANDS[FIRST[1]] if command.startswith("diagnostics capture")]
    assert captures


@pytest.mark.install
@pytest.mark.needs("curl", "curl")
@pytest.mark.timeout(900)
def test_the_first_commands_of_the_readme_succeed_on_a_service_that_has_work(follow: Follow) -> None:
    terminal = follow(f"{sys.version_info[0]}.{sys.version_info[1]}", FIRST)
    assert list(terminal.environment.folder.glob("captures/*-memray/flamegraph.html"))


@pytest.mark.install
@pytest.mark.needs("curl", "curl")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: f"python{version}-readme")
def test_all_commands_of_the_readme_succeed_in_order(follow: Follow, version: str) -> None:
    if version not in interpreters():
        pytest.skip(f"no Python {version} is found on PATH or in pyenv that can make environments")
    follow(version, COMMANDS)
