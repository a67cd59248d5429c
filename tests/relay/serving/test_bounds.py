"""The bounds of what a client or an upstream can make the relay hold outside of a stream's budget, and the deadlines."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
Eventually = Callable[..., Any]

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
MIB = 1024 * 1024


def body_of(model: str, padding: int = 0, *, stream: bool) -> bytes:
    return json.dumps({"model": model, "messages": [], "stream": stream, "padding": "x" * padding}).encode()


def asked(model: str, *, stream: bool) -> bytes:
    body = body_of(model, stream=stream)
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


@contextlib.contextmanager
def connected(relay: Any, receive_buffer: int = 0) -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.settimeout(60)
        if receive_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.connect(relay.address)
        yield made


def until_closed(connection: socket.socket) -> bytes:
    """What comes until the relay ends the connection, however it does."""
    content = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65536):
            content += chunk
    return content


def metric(relay: Any, name: str) -> float:
    """The sum of a metric's samples, as the relay's monitor tells it."""
    monitor = relay.lines[1].split()[1].removesuffix("/debug/memory")
    with urllib.request.urlopen(f"{monitor}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    assert found or name.startswith("stream_"), f"{name} is not told"  # streams are told by route, once there is one
    return sum(map(float, found))


def rss(relay: Any) -> int:
    pages = int(Path(f"/proc/{relay.process.pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_bodies_have_a_budget_together_that_is_told_and_given_back(start: Start, eventually: Eventually) -> None:
    relay = start(
        "--diagnostics", "127.0.0.1:0", "--requests-bytes", str(2 * MIB), "--request-body-timeout-seconds", "20"
    )
    with contextlib.ExitStack() as opened:
        answers = []
        for _ in range(8):  # each would hold a megabyte: the budget has room for one and a half
            connection = opened.enter_context(connected(relay))
            connection.sendall(HEAD + b"Content-Length: 10000000\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                connection.sendall(b" " * MIB)
            answers.append(connection)
        eventually(lambda: metric(relay, "request_buffered_bytes") > MIB / 2)
        assert metric(relay, "request_buffered_bytes") <= 2 * MIB
        refused = [connection for connection in answers if _has_answer(connection)]
        assert len(refused) >= 6
        # The quarter that is kept for small ones lets everybody else in.
        assert relay.chat("sim:events=1,pace=0", stream=False).status == 200
    eventually(lambda: metric(relay, "request_buffered_bytes") == 0)
    assert '"reason": "request_bytes"' in relay.log()


def _has_answer(connection: socket.socket) -> bool:
    connection.settimeout(2)
    try:
        return connection.recv(65536).startswith(b"HTTP/1.1 503")
    except TimeoutError:
        return False
    except ConnectionResetError:  # the reset overtook the answer
        return True


def test_an_open_stream_does_not_keep_its_request(start: Start, eventually: Eventually) -> None:
    relay = start("--diagnostics", "127.0.0.1:0")
    with connected(relay) as connection:
        body = body_of("sim:events=inf,pace=20", MIB // 2, stream=True)
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        eventually(lambda: metric(relay, "request_buffered_bytes") == 0)
        assert metric(relay, "stream_open_connections") == 1


def test_a_large_answer_comes_whole(start: Start) -> None:
    relay = start("--no-diagnostics", announced=2)
    model = "sim:events=2000,size=1000,pace=0,first=0"
    answer = relay.chat(model, stream=False)
    assert answer.status == 200
    assert len(json.loads(answer.body)["choices"][0]["message"]["content"]) >= 1_500_000
    assert relay.chat(model, stream=False).body[100:] == answer.body[100:]  # beside the time of its creation


def test_answers_that_nobody_reads_are_held_in_part_and_not_for_long(start: Start, eventually: Eventually) -> None:
    relay = start("--diagnostics", "127.0.0.1:0", "--write-timeout-seconds", "2")
    assert (
        relay.chat("sim:events=20,size=1000,pace=0", stream=False).status == 200
    )  # whatever is imported late is there now
    before = rss(relay)
    with contextlib.ExitStack() as opened:
        for _ in range(10):  # 8 MB each
            connection = opened.enter_context(connected(relay, 4096))
            connection.sendall(asked("sim:events=8000,size=1000,pace=0,first=0", stream=False))
        grown = [0]

        def all_given_up() -> bool:
            grown.append(rss(relay) - before)
            return metric(relay, "stream_closed_total") == 10

        eventually(all_given_up)
    assert max(grown) < 16 * MIB
    assert metric(relay, "stream_open_connections") == 0
    assert metric(relay, "stream_buffered_bytes") == 0


def test_an_answer_that_is_too_large_breaks_off(start: Start) -> None:
    relay = start("--no-diagnostics", "--max-response-bytes", "100000", announced=2)
    answer = relay.chat("sim:events=500,size=1000,pace=0,first=0", stream=False)
    assert (answer.status, answer.error["code"]) == (502, "upstream_protocol")  # it has a length


def test_a_client_that_is_given_up_leaves_nothing_in_the_kernel(start: Start, eventually: Eventually) -> None:
    relay = start("--no-diagnostics", "--write-timeout-seconds", "1", announced=2)
    with connected(relay, 4096) as slow, connected(relay, 4096) as answered:
        slow.sendall(asked("sim:events=inf,pace=0,size=1000", stream=True))
        # Its answer fits the kernel's buffers: for the relay it is sent, and the connection closed when it was idle.
        body = body_of("sim:events=20,size=1000,pace=0,first=0", stream=False)
        answered.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        eventually(lambda: bool(relay.endings(outcome="slow_client")))
        ports = {slow.getsockname()[1], answered.getsockname()[1]}
        eventually(lambda: not ports & _remote_ports(relay.address[1]))


def _remote_ports(port: int) -> set[int]:
    """Of the connections of a port that hold bytes for their peers."""
    found = set()
    for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]:
        fields = line.split()
        local, remote = (int(fields[column].rpartition(":")[2], 16) for column in (1, 2))
        if local == port and int(fields[4].partition(":")[0], 16):
            found.add(remote)
    return found


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"a:\r\n" * 300, "head_too_large"),
        (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200, "pipelined"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "head_malformed"),
    ],
    ids=["many headers", "many requests at once", "tls to a port without"],
)
def test_what_costs_more_than_it_sends_is_refused_and_says_why(start: Start, sent: bytes, reason: str) -> None:
    relay = start("--no-diagnostics", announced=2)
    with connected(relay) as connection:
        connection.sendall(sent)
        until_closed(connection)
    assert f'"reason": "{reason}"' in relay.log()
    assert ('"cause": "Invalid method encountered"' in relay.log()) == (reason == "head_malformed")
    assert relay.get("/healthz").status == 200


@pytest.mark.parametrize(
    "first",
    [
        b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
    ],
    ids=["a body that nobody reads", "trailers"],
)
def test_what_is_sent_after_an_answer_has_a_deadline(start: Start, first: bytes) -> None:
    relay = start("--no-diagnostics", "--request-body-timeout-seconds", "0.5", announced=2)
    with connected(relay) as connection:
        connection.sendall(first)
        until = time.monotonic() + 60
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < until:
                connection.sendall(b"a: b\r\n" * 10)
                time.sleep(0.1)
            raise AssertionError("the relay still takes it")


def test_connections_have_a_number(start: Start) -> None:
    relay = start("--no-diagnostics", "--max-connections", "3", announced=2)
    with contextlib.ExitStack() as opened:
        for _ in range(3):
            opened.enter_context(connected(relay)).sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            fourth = opened.enter_context(connected(relay))
        except ConnectionResetError:  # it was closed before `connect` had returned
            pass
        else:
            assert until_closed(fourth) == b""
    assert '"reason": "connections"' in relay.log()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"model": "m", "messages": [], "n": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"model": "m", "messages": [' + b"[]," * 500_000 + b"[]]}", "more than 500000 values"),
    ],
    ids=["deep", "5,000 digits", "many values"],
)
def test_json_that_costs_more_than_it_says_is_refused(
    relay: Any, content: bytes, says: str, start_shared: Start
) -> None:
    if len(content) > 200_000:  # the limit of the relay that all share
        relay = start_shared("--no-diagnostics", announced=2)
    answer = relay.ask("POST", "/v1/chat/completions", content, {})
    assert (answer.status, answer.error["code"]) == (400, "bad_request")
    assert says in answer.error["message"]
    assert "Traceback" not in relay.log()


@pytest.mark.parametrize("host", ["[", "[::1", "a]b", "\x80", "localhost:99999999999999999999"])
def test_a_host_that_is_none_is_refused_without_a_traceback(relay: Any, host: str) -> None:
    with connected(relay) as connection:
        connection.sendall(f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        assert until_closed(connection).split(b" ")[1][:1] == b"4"
    assert "Traceback" not in relay.log()


def test_causes_at_the_upstream_are_in_the_log_and_not_in_the_answer(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:
        port = plain.getsockname()[1]
        threading.Thread(target=_greets, args=(plain,), daemon=True).start()
        relay = start(
            "--no-diagnostics",
            announced=2,
            RELAY_UPSTREAM_BASE_URL=f"https://127.0.0.1:{port}/v1",
            RELAY_UPSTREAM_RETRIES="0",
        )
        answer = relay.chat("m")
    assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
    assert "SSL" not in answer.error["message"]
    lines = [json.loads(line) for line in relay.log().splitlines() if "cannot be reached" in line]
    assert [(line["reason"], line["port"]) for line in lines if "cause" in line] == [("tls", port)]


def _greets(server: socket.socket) -> None:
    """An upstream that does not speak TLS."""
    with contextlib.suppress(OSError):
        accepted, _ = server.accept()
        with accepted:
            accepted.recv(65536)
            accepted.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
