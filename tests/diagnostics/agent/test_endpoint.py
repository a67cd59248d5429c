"""The agent in a process of its own, asked over its real socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from diagnostics.monitor.kernel.short_path import short_path
from diagnostics.monitor.workers.listener import full_queue_holder
from diagnostics.protocol import MAX_REPLY_BYTES, VERSION, frame, read_frame, request

BUSY = """
import asyncio, sys
from pathlib import Path
from diagnostics.agent import lifecycle
from diagnostics.agent.ledger import StreamLedger

kept = []
async def main():
    ledger = StreamLedger()
    lifecycle.start(Path(sys.argv[1]), ledger)
    stream = ledger.open("/s")
    print("ready", flush=True)
    while True:
        kept.append(bytes(2000))
        stream.hold(2000)
        await asyncio.sleep(0.01)
if len(sys.argv) > 2:
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(params=["asyncio", "uvloop"])
def agent(request: pytest.FixtureRequest, launch: Any, tmp_path: Path) -> tuple[Ask, Path, Any]:
    """(ask, the socket's path, the process) of a process that allocates all the time."""
    root = tmp_path / "root"
    words = ["uvloop"] if request.param == "uvloop" else []
    launched = launch(sys.executable, "-c", BUSY, root, *words)
    launched.wait_for("ready")
    path = root / "agents" / f"{launched.process.pid}.sock"

    def ask(op: str, **params: Any) -> dict[str, Any]:
        return exchange(path, {"version": VERSION, "op": op, "params": params})

    return ask, path, launched


def exchange(path: Path, message: Any) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(frame(message))
        return read_frame(connection, MAX_REPLY_BYTES)


def test_the_socket_lies_in_a_folder_for_its_owner_alone_and_goes_with_the_process(agent: Any, eventually: Any) -> None:
    ask, path, launched = agent
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert ask("hello")["result"]["pid"] == launched.process.pid
    launched.end(number=2)
    assert not path.exists()


def test_a_reading_tells_what_is_in_use(agent: Any, eventually: Any) -> None:
    ask, _, _ = agent
    first = ask("reading")["result"]
    assert first["tasks"] == 1
    assert first["loops"] == 1
    assert first["ledger"]["open"] == 1
    held = ask("held")["result"]["reading"]
    assert held["answers"] == 1
    assert 0 < held["longest_seconds"] <= held["cpu_seconds"]
    before = first["allocators"]["in_use_bytes"]
    eventually(lambda: ask("reading")["result"]["allocators"]["in_use_bytes"] > before + 100_000)


def test_a_tracemalloc_window_names_the_line_and_leaves_no_tracing(agent: Any) -> None:
    ask, _, _ = agent
    assert "result" in ask("tracemalloc.begin", seconds=1, frames=3)
    assert ask("reading")["result"]["window"] == "tracemalloc"
    busy = ask("tracemalloc.begin", seconds=1)
    assert busy["error"]["code"] == "busy"
    time.sleep(0.5)
    profile = ask("tracemalloc.finish")["result"]
    held = {}
    for stack, values, _labels in profile["samples"]:
        _function, file, line = profile["frames"][stack[0]]
        held[file, line] = held.get((file, line), 0) + values[0]
    file, line = max(held, key=lambda where: held[where])
    assert (file, BUSY.splitlines()[line - 1].strip()) == ("<string>", "kept.append(bytes(2000))")
    assert ask("reading")["result"]["window"] is None
    assert ask("tracemalloc.finish")["error"]["code"] == "no_window"


def test_a_memray_window_writes_a_file_that_memray_reads(agent: Any, tmp_path: Path) -> None:
    import memray

    ask, _, _ = agent
    path = tmp_path / "capture.bin"
    assert "result" in ask("memray.begin", path=str(path), seconds=1)
    time.sleep(0.5)
    assert ask("memray.finish")["result"]["seconds"] > 0
    with memray.FileReader(path) as reader:
        held = [record for record in reader.get_leaked_allocation_records() if record.stack_trace()]
    largest = max(held, key=lambda record: record.size)
    assert largest.stack_trace()[0][0] == "main"


def test_a_memray_file_that_exists_is_never_overwritten(agent: Any, tmp_path: Path) -> None:
    ask, _, _ = agent
    path = tmp_path / "precious"
    path.write_text("keep", encoding="utf-8")
    assert "error" in ask("memray.begin", path=str(path), seconds=1)
    assert path.read_text(encoding="utf-8") == "keep"
    assert ask("reading")["result"]["window"] is None


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        (request("shutdown"), "protocol", "does not know the operation 'shutdown'"),
        (request("reading", color=1), "protocol", "does not take"),
        ({**request("hello"), "version": 99}, "protocol", "version 99"),
        ({"version": VERSION, "op": "hello", "params": [1]}, "protocol", "params must be an object"),
        (request("tracemalloc.begin", seconds=1, frames=0), "usage", "frames is 0"),
    ],
)
def test_what_it_does_not_understand_is_answered_and_it_goes_on(
    agent: Any, message: dict[str, Any], code: str, says: str
) -> None:
    ask, path, _ = agent
    error = exchange(path, message)["error"]
    assert error["code"] == code
    assert says in error["message"]
    assert "result" in ask("hello")


def test_rubbish_and_silence_on_the_socket_do_not_stop_it(agent: Any) -> None:
    ask, path, _ = agent
    for rubbish in (b"", b"\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x04abcd"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(rubbish)
    assert "result" in ask("hello")


def test_who_only_looks_whether_somebody_listens_is_no_trouble(agent: Any) -> None:
    ask, path, _ = agent
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
    assert ask("reading")["result"]["troubles"]["count"] == 0


def test_a_window_whose_monitor_died_is_closed_by_the_agent() -> None:
    from diagnostics.agent.windows import GRACE_SECONDS, Windows

    now = [0.0]
    windows = Windows(clock=lambda: now[0])
    windows.begin_tracemalloc(seconds=5, frames=1)
    now[0] = 5 + GRACE_SECONDS - 0.1
    assert windows.end_overdue() is None
    now[0] += 0.2
    assert windows.end_overdue() == "tracemalloc"
    assert windows.kind is None


def test_a_child_that_needs_too_long_or_too_much_is_killed_and_says_so(tmp_path: Path) -> None:
    from diagnostics.agent.forked import fork_reading

    def grow() -> dict[str, Any]:
        held = bytearray()
        while True:
            held += b"x" * 1_000_000

    def sleep() -> dict[str, Any]:
        time.sleep(60)
        return {}

    for work, seconds, says in (
        (grow, 30.0, "MiB of the service, more than the 29 MiB"),
        (sleep, 0.2, "not done after"),
    ):
        left, right = socket.socketpair()
        with left, right:
            child = fork_reading(work, right, seconds=seconds, room_bytes=60_000_000, remedy="take less")
            while not child.poll(time.monotonic()):
                time.sleep(0.01)
            left.settimeout(60)
            error = read_frame(left, 1 << 20)["error"]
            assert says in error["message"]
            assert error["remedy"] == "take less"
            with pytest.raises(ProcessLookupError):
                os.kill(child.pid, 0)


def test_what_a_child_may_need_follows_the_service_and_leaves_half_of_what_is_free() -> None:
    from diagnostics.agent.forked import max_extra_bytes

    mib, gib = 1024**2, 1024**3
    assert max_extra_bytes(40 * mib, None) == 256 * mib
    assert max_extra_bytes(2 * gib, None) == 6 * gib  # and not 2 GiB for a service of any size
    assert max_extra_bytes(2 * gib, 3 * gib) == 1.5 * gib


def test_a_child_holds_no_socket_of_the_service_and_reports_its_own_failure() -> None:
    from diagnostics.agent.forked import fork_reading

    def list_fds() -> dict[str, Any]:
        return {"fds": [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd != "0"]}

    def fail() -> dict[str, Any]:
        raise LookupError("nothing there")

    answers = []
    for work in (list_fds, fail):
        left, right = socket.socketpair()
        with left, right, socket.create_server(("127.0.0.1", 0)):
            child = fork_reading(work, right, seconds=10)
            left.settimeout(60)
            answers.append(read_frame(left, 1 << 20))
            while not child.poll(time.monotonic()):
                time.sleep(0.01)
    open_sockets = [link for link in answers[0]["result"]["fds"] if link.startswith("socket:")]
    assert len(open_sockets) == 1, json.dumps(answers[0])
    assert "LookupError: nothing there" in answers[1]["error"]["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to become another user")
def test_another_user_is_not_answered_even_where_the_folder_lets_him_in(agent: Any) -> None:
    ask, path, _ = agent
    path.parent.chmod(0o755)
    path.chmod(0o777)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(path.parent)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(60)
                connection.connect(path.name)
                os.write(writer, json.dumps(read_frame(connection, MAX_REPLY_BYTES)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, "rb") as answer:
        told = json.loads(answer.read())
    assert told["error"]["code"] == "refused"
    assert "uid 65534 may not ask" in told["error"]["message"]
    assert "result" in ask("hello")


def test_an_agent_whose_folder_has_a_longer_name_than_an_address_is_found_and_answers(
    observed: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    folder = tmp_path / ("a-folder-with-a-long-name-" * 5)
    service = observed("from fastapi import FastAPI\napp = FastAPI()\n", env={"DIAGNOSTICS_DIR": str(folder)})

    def worker() -> Any:
        workers = http(f"{service.monitor}/debug/memory").json()["workers"]
        return workers if len(workers) == 1 and workers[0]["state"] == "answering" else None

    (found,) = eventually(worker, patience=60, what="a worker that answers")
    (path,) = (folder / "agents").iterdir()
    assert len(os.fsencode(path)) > 107
    os.kill(found["pid"], signal.SIGSTOP)
    try:
        fill(path)
        assert full_queue_holder(path) == found["pid"]
    finally:
        os.kill(found["pid"], signal.SIGCONT)


def fill(path: Path) -> None:
    """Connect until the listener's queue is full."""
    with ExitStack() as opened, short_path(path) as address:
        while True:
            connection = opened.enter_context(socket.socket(socket.AF_UNIX))
            connection.setblocking(False)
            try:
                connection.connect(address)
            except BlockingIOError:
                return


def test_what_the_agent_imports_is_never_in_a_window_of_a_tracer(agent: Any) -> None:
    ask, _, _ = agent
    ask("tracemalloc.begin", seconds=5, frames=1)
    profile = ask("tracemalloc.finish")["result"]
    files = {file for _function, file, _line in profile["frames"]}
    assert files
    assert not [file for file in files if "importlib" in file or "ctypes" in file], files
