"""The registry folder: whose sockets count, what killed processes leave, and numbers that outlive the monitor."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diagnostics.monitor.kernel.process import Identity, identity
from diagnostics.monitor.workers.registry import Registry, listening_pid
from diagnostics.monitor.workers.roster import Roster
from diagnostics.monitor.workers.targets import Targets

LISTENING = """
import os, socket, sys
for name in sys.argv[1:]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name.replace("PID", str(os.getpid())))
    listener.listen()
    globals()[name] = listener
print("listening", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    folder = tmp_path / "agents"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def listening(agents: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens as an agent does, under its own number, and under number 1, as a container's first one would."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTENING, str(agents / "PID.sock"), str(agents / "1.sock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def test_the_kernel_says_who_listens_whatever_the_socket_is_called(
    tmp_path: Path, agents: Path, listening: subprocess.Popen[bytes]
) -> None:
    assert listening_pid(agents / f"{listening.pid}.sock") == listening.pid
    (agents / f"{listening.pid}.sock").unlink()
    assert Registry(tmp_path).agents() == {listening.pid: agents / "1.sock"}
    listening.kill()
    listening.wait()
    os.utime(agents / "1.sock", (1, 1))
    assert Registry(tmp_path).agents() == {}
    assert not (agents / "1.sock").exists()


def test_a_socket_that_was_left_under_a_number_that_is_anothers_now_is_no_agent(tmp_path: Path, agents: Path) -> None:
    left = agents / f"{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(left))
    registry = Registry(tmp_path)
    assert registry.agents() == {}
    assert left.exists()  # an agent that has bound and does not listen yet looks like this
    os.utime(left, (1, 1))
    assert registry.agents() == {}
    assert not left.exists()


def test_a_monitor_that_comes_back_gives_each_worker_the_number_it_had(
    tmp_path: Path, agents: Path, listening: subprocess.Popen[bytes]
) -> None:
    (agents / "1.sock").unlink()
    found = identity(listening.pid)
    assert found is not None
    roster = Roster(tmp_path)
    roster.keep({"7": found[0]}, set())
    assert [(one.name, one.pid) for one in Targets(tmp_path).workers()] == [("7", listening.pid)]
    # The same pid of another boot is another process: it is given the lowest number.
    told = json.loads((tmp_path / "workers.json").read_text(encoding="utf-8"))
    told["workers"]["7"]["boot_id"] = "another"
    (tmp_path / "workers.json").write_text(json.dumps(told), encoding="utf-8")
    assert [one.name for one in Targets(tmp_path).workers()] == ["0"]


def test_who_supervises_is_remembered_too(tmp_path: Path, agents: Path, listening: subprocess.Popen[bytes]) -> None:
    (agents / "1.sock").unlink()
    found = identity(listening.pid)
    assert found is not None
    Roster(tmp_path).keep({}, {found[0]})
    targets = Targets(tmp_path)
    assert targets.workers() == []
    assert [(one.pid, one.role) for one in targets.processes()] == [(listening.pid, "supervisor")]


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"workers": 3}', '{"workers": {"x": {}, "1": {"pid": "a"}}}', "\xff"]
)
def test_a_damaged_memory_costs_the_numbers_and_nothing_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "workers.json").write_text(text, encoding="latin-1")
    roster = Roster(tmp_path)
    assert (roster.names, roster.supervisors) == ({}, set())
    who = Identity(5, "boot", 7)
    roster.keep({"0": who}, {who})
    assert Roster(tmp_path).name_of(who) == "0"
