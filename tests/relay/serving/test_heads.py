"""The head of a request, before any key is checked: bounded in size and in time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

Start = Callable[..., Any]

MAX_HEAD_BYTES = 64 * 1024


def answer(connection: socket.socket) -> bytes:
    """What comes until the relay closes the connection."""
    content = b""
    while chunk := connection.recv(65536):
        content += chunk
    return content


def send_until_refused(connection: socket.socket, piece: bytes, most: int) -> int:
    """Send `piece` again and again; the bytes that went out before the relay closed the connection."""
    sent = 0
    while sent < most:
        try:
            sent += connection.send(piece)
        except OSError:
            break
    return sent


@pytest.mark.parametrize("piece", [b"a: b\r\n", b"a" * 1024, b"\r\n"], ids=["lines", "one line", "empty lines"])
def test_a_head_without_end_is_refused_before_it_is_large(start: Start, piece: bytes) -> None:
    relay = start("--no-diagnostics", announced=2)
    begin = b"" if piece == b"\r\n" else b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
    with socket.create_connection(relay.address, timeout=30) as connection:
        connection.sendall(begin)
        # What the kernel's buffers on both sides take comes on top of what the relay reads.
        assert send_until_refused(connection, piece * (1024 // len(piece)), 64 * 1024 * 1024) < 32 * 1024 * 1024
    assert relay.get("/healthz").status == 200


def test_a_large_head_is_told_so(start: Start) -> None:
    relay = start("--no-diagnostics", announced=2)
    with socket.create_connection(relay.address, timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nx: " + b"y" * (MAX_HEAD_BYTES + 1000))
        try:
            told = answer(connection)
        except ConnectionResetError:  # it was closed with bytes unread, and the reset overtook the answer
            told = b"HTTP/1.1 431"
        assert told.startswith(b"HTTP/1.1 431")


def test_a_head_that_is_just_allowed_is_served(start: Start) -> None:
    relay = start("--no-diagnostics", announced=2)
    with socket.create_connection(relay.address, timeout=30) as connection:
        for _ in range(2):  # the second one on the same connection: the count begins anew
            head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nx: " + b"y" * (MAX_HEAD_BYTES - 100) + b"\r\n\r\n"
            for at in range(0, len(head), 1000):
                connection.sendall(head[at : at + 1000])
            told = b""
            while not told.endswith(b"}"):  # head and body may come apart
                told += connection.recv(65536)
            assert told.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "begun", [b"", b"GET /healthz HTTP/1.1\r\nHost: loc", b"\r\n"], ids=["silent", "half", "empty line"]
)
def test_a_head_that_does_not_come_ends_its_connection(start: Start, begun: bytes) -> None:
    relay = start("--no-diagnostics", "--head-timeout-seconds", "0.5", announced=2)
    with socket.create_connection(relay.address, timeout=60) as connection:
        connection.sendall(begun)
        assert answer(connection).startswith(b"HTTP/1.1 408" if begun else b"")


def test_the_second_head_of_a_connection_has_a_limit_too(start: Start) -> None:
    relay = start("--no-diagnostics", "--head-timeout-seconds", "0.5", announced=2)
    with socket.create_connection(relay.address, timeout=60) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        told = b""
        while not told.endswith(b"}"):
            told += connection.recv(65536)
        connection.sendall(b"GET /hea")
        assert b"408" in answer(connection)


def test_a_stream_outlives_the_half_of_a_next_request(start: Start) -> None:
    relay = start("--no-diagnostics", "--head-timeout-seconds", "0.2", announced=2)
    with relay.open("sim:events=inf,pace=20") as connection:
        assert connection.recv(65536)
        connection.sendall(b"GET /hea")
        until = time.monotonic() + 2.5  # ten times the limit, and two of the server's looks
        while time.monotonic() < until:
            assert connection.recv(65536)


def test_what_was_refused_is_counted(start: Start, eventually: Callable[..., None]) -> None:
    relay = start("--diagnostics", "127.0.0.1:0", "--head-timeout-seconds", "0.2")
    with socket.create_connection(relay.address, timeout=60) as connection:
        answer(connection)

    eventually(lambda: '"reason": "head_timeout"' in relay.log())
