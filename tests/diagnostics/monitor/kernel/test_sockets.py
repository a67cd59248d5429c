"""The kernel's table as text, the same table live, and what a process family serves."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.monitor.kernel.family import Family, why_no_agent
from diagnostics.monitor.kernel.sockdiag import LISTEN, TcpSocket, dump
from diagnostics.monitor.kernel.sockets import Sockets, parse
from diagnostics.monitor.workers.connections import connections_of, streams_of

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
V4 = (
    HEAD
    + "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000  1000        0 11 1 0000000000000000 100 0\n"
    + "   1: 0100007F:1F90 0100007F:C350 01 0026D400:00000010 01:00000014 00000000  1000        0 12 2 0000000000000000 20 4\n"
    + "   2: 0100007F:1F90 0100007F:C351 06 00000000:00000000 03:00000F00 00000000     0        0 0 3 0000000000000000\n"
)
V6 = (
    HEAD
    + "   0: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:C352 01 00000001:00000000 "
    + "00:00000000 00000000  1000        0 13 1 0000000000000000 20 4 30 10 -1\n"
)


def test_rows_are_told_by_inode_with_their_queues() -> None:
    assert parse(V4) == {11: TcpSocket(8080, 10, 0, 3), 12: TcpSocket(8080, 1, 0x26D400, 16)}
    assert parse(V6) == {13: TcpSocket(8080, 1, 1, 0)}


@pytest.mark.parametrize("length", range(0, len(V4), 7))
def test_a_table_that_is_cut_anywhere_gives_the_rows_before_the_cut(length: int) -> None:
    rows = parse(V4[:length])
    assert rows.keys() <= {11, 12, 1}  # an inode may be cut, too


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    assert all(row == TcpSocket(*row) for row in parse(HEAD + text).values())


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A listener and the connection that it accepted; the client never reads."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as served,
    ):
        yield listener, served


def fill(connection: socket.socket) -> int:
    """Write until the kernel takes no more; returns the bytes it took."""
    connection.setblocking(False)
    written = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            written += connection.send(bytes(65536))
    return written


def test_what_a_client_does_not_read_is_found_in_the_servers_queue() -> None:
    with connected() as (listener, served):
        written = fill(served)
        unsent = Sockets().unsent(os.getpid(), [served.fileno(), listener.fileno(), 0])
        assert set(unsent) == {served.fileno()}
        assert 0 < unsent[served.fileno()] <= written
        told = Sockets().served(os.getpid())
        assert listener.getsockname()[1] in told.ports
        assert told.connections >= 1
        assert told.kernel_bytes > 0


@pytest.fixture
def shared_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Share what was read for so many seconds, whether it was quick to read or, as beside thousands of sockets, was not."""

    def share(seconds: float) -> None:
        monkeypatch.setattr("diagnostics.monitor.kernel.sockets._SHARED_SECONDS", seconds)
        monkeypatch.setattr("diagnostics.monitor.kernel.sockets._DEAR_SECONDS", math.inf)

    return share


def test_a_connection_that_is_known_is_not_read_again_and_one_in_its_place_is(
    monkeypatch: pytest.MonkeyPatch, shared_for: Callable[[float], None]
) -> None:
    read: list[str] = []
    readlink = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path, **more: (read.append(str(path)), readlink(path, **more))[1])
    shared_for(0.0)
    sockets = Sockets()
    with connected() as (_, served):
        place = served.fileno()
        before = sockets._descriptors(os.getpid())[place]
        assert str(place) in read
        read.clear()
        assert sockets._descriptors(os.getpid())[place] == before
        assert str(place) not in read
        with connected() as (_, other):
            os.dup2(other.fileno(), place)  # as when a service closes one connection and accepts the next
            assert sockets._descriptors(os.getpid())[place] == os.fstat(other.fileno()).st_ino != before


@pytest.mark.parametrize("shared_seconds", [0.0, 600.0])
@pytest.mark.parametrize("held", [False, True], ids=["closed", "still held"])
def test_what_a_connection_held_is_never_told_of_the_one_in_its_place(
    shared_for: Callable[[float], None], shared_seconds: float, held: bool
) -> None:
    shared_for(shared_seconds)
    sockets = Sockets()
    with contextlib.ExitStack() as opened:
        _, served = opened.enter_context(connected())
        place = served.fileno()
        fill(served)
        assert sockets.unsent(os.getpid(), [place])[place] > 0
        if held:
            opened.enter_context(os.fdopen(os.dup(place), "wb", closefd=True))
        _, other = opened.enter_context(connected())
        os.dup2(other.fileno(), place)
        assert sockets.unsent(os.getpid(), [place]) == {place: 0}
        assert sockets.unsent(os.getpid(), [place, other.fileno()]) == {place: 0, other.fileno(): 0}


def test_one_table_serves_all_who_look_at_once(
    monkeypatch: pytest.MonkeyPatch, shared_for: Callable[[float], None]
) -> None:
    reads: list[int] = []
    read = Sockets._read_table
    monkeypatch.setattr(Sockets, "_read_table", lambda self, pid: (reads.append(pid), read(self, pid))[1])
    shared_for(600.0)
    sockets = Sockets()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        for pid in (os.getpid(), child.pid, os.getpid()):
            sockets.table(pid)
        child.communicate()
    assert reads == [os.getpid()]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_netlink_and_the_printed_table_tell_the_same(host: str, eventually: Callable[..., object]) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if ":" in host and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this kernel has no IPv6")
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
        listener.accept()[0] as served,
        socket.create_connection(listener.getsockname()[:2]),  # is not accepted
    ):
        fill(served)
        own = {os.fstat(each.fileno()).st_ino for each in (listener, client, served)}
        table = Path("/proc/net/tcp6" if ":" in host else "/proc/net/tcp")

        def same() -> bool:  # the client's kernel goes on taking bytes for a moment
            printed, told = parse(table.read_text(encoding="utf-8")), dump()
            return {inode: told[inode] for inode in own} == {inode: printed[inode] for inode in own}

        eventually(same)
        assert dump()[os.fstat(listener.fileno()).st_ino][1:] == (LISTEN, 0, 1)


def test_where_netlink_is_forbidden_the_printed_table_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(ids: object = None) -> dict[int, TcpSocket]:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("diagnostics.monitor.kernel.sockets.dump", forbidden)
    with connected() as (listener, _):
        assert listener.getsockname()[1] in Sockets().served(os.getpid()).ports


def test_a_process_that_is_gone_has_nothing() -> None:
    gone = 2**22 + 1
    assert Sockets().served(gone) == ((), 0, 0, 0)
    assert Sockets().unsent(gone, [1, 2]) == {}


PARENT = """
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(60)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("children", [0, 2])
def test_a_parent_whose_children_hold_its_listener_is_no_worker(launch: Callable[..., object], children: int) -> None:
    launched = launch(sys.executable, "-I", "-c", PARENT, str(children))
    launched.wait_for("ready")  # type: ignore[attr-defined]
    pid: int = launched.process.pid  # type: ignore[attr-defined]
    family = Family()
    assert len(family.of(pid)) == 1 + children
    assert family.servers(pid, Sockets()) == (family.of(pid)[1:] or [pid])
    assert "started with -I" in why_no_agent(pid)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["/usr/bin/python3.11", "-bE", "app.py"], "started with -E"),
        (["python", "-u", "-S", "app.py"], "started with -S"),
        (["python", "-m", "uvicorn", "-I"], "has not served yet"),
        (["python", "app.py", "-I"], "where it never listens on a port, start it with DIAGNOSTICS_AGENT=always"),
        (["nginx: master"], "nginx: master is not started as Python"),
        ([], "its program is not"),
    ],
)
def test_the_reason_for_a_missing_agent_is_read_off_the_command_line(
    tmp_path: Path, words: list[str], says: str
) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").write_bytes(b"\0".join(word.encode() for word in words))
    assert says in why_no_agent(7, tmp_path)


def test_kernel_bytes_are_joined_to_routes_and_streams_and_http2_is_counted_once() -> None:
    with connected() as (_, served):
        fd = served.fileno()
        row = {"route": "/a", "age_seconds": 1.0, "response_started": True, "transport_bytes": 7, "fd": fd}
        reading = {
            "connections": {
                "source": "server",
                "open": 2,
                "routes": {"/a": {"open": 2, "transport_bytes": 7}, "/b": {"open": 0, "transport_bytes": 0}},
                "fds": {"/a": [fd, fd]},
                "top": [row, {**row, "response_started": False, "fd": None}],
            }
        }
        fill(served)
        told = connections_of(os.getpid(), reading, Sockets())
        held = told["routes"]["/a"]["kernel_bytes"]
        assert held > 0
        assert told["routes"]["/b"]["kernel_bytes"] == 0
        (stream,) = streams_of(reading, told)
        assert stream["source"] == "server"
        assert stream["buffered_bytes"] is None
        assert (stream["transport_bytes"], stream["kernel_bytes"]) == (7, held)
        assert stream["held_bytes"] == 7 + held
        assert "fds" not in told


def test_where_a_server_tells_no_descriptors_their_bytes_are_unknown_and_all_together_are_counted() -> None:
    with connected() as (_, served):
        row = {"route": "/a", "age_seconds": 1.0, "response_started": None, "transport_bytes": None, "fd": None}
        reading = {
            "connections": {
                "source": "server",
                "open": None,
                "routes": {"/a": {"open": 1, "transport_bytes": None}},
                "fds": {"/a": None},
                "top": [row],
            }
        }
        fill(served)
        told = connections_of(os.getpid(), reading, Sockets())
        assert told["routes"]["/a"]["kernel_bytes"] is None
        assert told["open"] >= 1
        assert told["routes"]["(unrouted)"]["kernel_bytes"] > 0
        (stream,) = streams_of(reading, told)
        assert stream["held_bytes"] is stream["kernel_bytes"] is None


def test_whoever_serves_and_is_not_looked_into_has_the_reason_said() -> None:
    with connected():
        agent: dict[str, Any] = {"connections": {"source": "sockets", "server": None, "unknown": []}}
        assert "hypercorn" in connections_of(os.getpid(), agent, Sockets())["unknown"][0]
        agent["connections"]["unknown"] = ["hypercorn 9.9: its tasks not found"]
        assert connections_of(os.getpid(), agent, Sockets())["unknown"] == ["hypercorn 9.9: its tasks not found"]
        assert "no agent" in connections_of(os.getpid(), None, Sockets())["unknown"][0]


def test_what_the_kernel_holds_for_a_unix_sockets_connections_is_unknown_and_not_zero() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        rows = {"/a": {"open": 1, "transport_bytes": 7}, "/b": {"open": 0, "transport_bytes": 0}}
        fds = {"/a": [ours.fileno()]}
        reading = {"connections": {"source": "server", "open": 1, "routes": rows, "fds": fds, "top": []}}
        told = connections_of(os.getpid(), reading, Sockets())
        assert told["routes"]["/a"]["kernel_bytes"] is None
        assert told["routes"]["/b"]["kernel_bytes"] == 0


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch, shared_for: Callable[[float], None]) -> list[int]:
    """One entry for each time that the kernel's whole table is read."""
    reads: list[int] = []
    read = Sockets._read_table
    monkeypatch.setattr(
        Sockets, "_read_table", lambda self, pid, ids=None: (reads.append(pid), read(self, pid, ids))[1]
    )
    shared_for(0.0)
    return reads


def test_few_connections_are_looked_up_one_by_one_once_they_are_known(
    tables: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diagnostics.monitor.kernel.sockets._MISSED_SECONDS", 600.0)  # sockets of other kinds
    sockets = Sockets()
    with connected() as (listener, served):
        before = sockets.served(os.getpid())
        tables.clear()
        fill(served)
        after = sockets.served(os.getpid())
        assert listener.getsockname()[1] in after.ports
        assert (after.connections, after.outgoing) == (before.connections, before.outgoing)
        assert after.kernel_bytes > before.kernel_bytes
        assert sockets.unsent(os.getpid(), [served.fileno()])[served.fileno()] > 0
        assert tables == []
        with connected() as (other, _):  # a new one is found at once
            assert other.getsockname()[1] in sockets.served(os.getpid()).ports
            assert tables
        tables.clear()
        assert other not in sockets.served(os.getpid()).ports
    closed = sockets.served(os.getpid())
    assert closed.connections == before.connections - 1
    assert tables == []


def test_a_socket_that_connects_later_is_found_then(
    tables: list[int], monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., object]
) -> None:
    monkeypatch.setattr("diagnostics.monitor.kernel.sockets._MISSED_SECONDS", 0.0)
    sockets = Sockets()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as late:
        before = sockets.served(os.getpid())
        late.connect(listener.getsockname())
        eventually(lambda: sockets.served(os.getpid()).outgoing == before.outgoing + 1)


def test_sockets_of_other_kinds_do_not_have_the_table_read_each_time(tables: list[int]) -> None:
    sockets = Sockets()
    ours, theirs = socket.socketpair()
    with ours, theirs, connected():
        sockets.served(os.getpid())
        tables.clear()
        for _ in range(20):
            sockets.served(os.getpid())
    assert len(tables) <= 2


@pytest.mark.parametrize(("pairs", "reused"), [(0, False), (200, True)])
def test_what_a_process_with_many_sockets_serves_is_reused_for_a_few_seconds(
    pairs: int, reused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a per cent of a core is what it may take: with thousands of streams a reading takes as long as an event of each."""
    clock = SimpleNamespace(now=100.0, cpu=0.0)

    def cpu() -> float:
        clock.cpu += 0.005  # of which the table takes too little to be reused by itself
        return float(clock.cpu)

    times = SimpleNamespace(monotonic=lambda: clock.now, thread_time=cpu)
    monkeypatch.setattr("diagnostics.monitor.kernel.sockets.time", times)
    with contextlib.ExitStack() as stack:
        for _ in range(pairs):
            for end in socket.socketpair():
                stack.enter_context(end)
        sockets = Sockets()
        before = sockets.served(os.getpid()).connections
        stack.enter_context(connected())
        clock.now += (
            1.0  # less than two hundred times the cost; a table of that cost would be read again after 1.6 seconds
        )
        assert (sockets.served(os.getpid()).connections == before) is reused
        clock.now += 5.0
        assert sockets.served(os.getpid()).connections == before + 1
