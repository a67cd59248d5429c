"""A monitor whose resolver is silent, as in an outage: its own work goes on, and it ends at once."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from diagnostics.monitor import loop
from diagnostics.monitor.loop import run_monitor
from tests.silent_resolver import needs_namespaces, said_beside_it

# Thirty names of a fleet are more than asyncio has threads for, on any machine of less than 28 cores.
FLEET = """
import subprocess, sys, threading, time, urllib.request

def ask(path):
    with urllib.request.urlopen(url + path, timeout=100) as answer:
        answer.read()

words = ",".join(f"http://replica-{number}.test:6060" for number in range(30))
command = [sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0", "--dir", sys.path[0], "--fleet", words]
monitor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
url = monitor.stdout.readline().split()[1]
fleet = threading.Thread(target=ask, args=("/fleet",))
fleet.start()
time.sleep(1)
began = time.monotonic()
ask("/verdict")
print("verdict", time.monotonic() - began < 20)
fleet.join()
began = time.monotonic()
monitor.terminate()
print("ended with", monitor.wait(), time.monotonic() - began < 20)
"""


@needs_namespaces
def test_a_resolver_that_is_silent_stops_neither_verdicts_nor_the_end(tmp_path: Path) -> None:
    assert said_beside_it(tmp_path, FLEET, 200) == "verdict True\nended with 0 True\n"


class Resolver:
    """Takes the place of socket.getaddrinfo: each call waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()
        self.answer = answer
        monkeypatch.setattr(loop.socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, *_: Any) -> Any:
        self.asked.append(host)
        assert self.go.wait(60)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def looked_up(resolver: Resolver, *names: str) -> list[Any]:
    asking = [asyncio.create_task(asyncio.get_running_loop().getaddrinfo(name, 80)) for name in names]
    await asyncio.sleep(0.05)
    resolver.go.set()
    return await asyncio.gather(*asking, return_exceptions=True)


def test_who_asks_for_a_name_that_is_being_looked_up_gets_that_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, ["an address"])
    assert run_monitor(looked_up(resolver, "one", "other", "one")) == [["an address"]] * 3
    assert sorted(resolver.asked) == ["one", "other"]


def test_each_gets_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that several raise would hold the frames of all of them."""
    resolver = Resolver(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    errors = run_monitor(looked_up(resolver, "one", "one"))
    assert [error.errno for error in errors] == [socket.EAI_NONAME] * 2
    assert errors[0] is not errors[1]


def test_lookups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MOST_LOOKUPS", 2)
    resolver = Resolver(monkeypatch, ["an address"])
    *known, refused = run_monitor(looked_up(resolver, "one", "other", "one", "third"))
    assert known == [["an address"]] * 3
    assert refused.errno == socket.EAI_AGAIN


def test_a_process_that_had_no_thread_for_a_lookup_looks_the_name_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, ["an address"])

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> list[Any]:
        with monkeypatch.context() as without:
            without.setattr(threading.Thread, "start", start)
            with pytest.raises(OSError, match="can't start new thread"):
                await asyncio.wait_for(asyncio.get_running_loop().getaddrinfo("one", 80), 60)
        return await looked_up(resolver, "one")

    assert run_monitor(main()) == [["an address"]]
