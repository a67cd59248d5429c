"""What one peer can make the relay hold, whatever it sends or refuses to take: resident memory of 1,000 of them, by kind.

    python tests/bench/bench_bounds.py [--peers N] [--seconds S] [--only NAME,NAME] [--idle N] [--write docs/reliability.md]

Each kind of peer gets a relay of its own. Its resident memory is read twenty times a second from before the first of them to
after the last; what is told is the most above what it was at the beginning, divided by the number of peers. The upstream is the
chaos suite's. Exits with 1 where a peer held more than a stream's budget and what a connection is allowed besides.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import platform
import resource
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.chaos.relay import Relay, Surroundings
from tests.documents import write

KIB = 1024
# A stream's budget, and what a connection is allowed besides: a head, a body that nobody has read yet, and one recv.
ALLOWED_KIB = 256 + 64 + 64 + 256
IDLE_KIB = 10
SETTINGS = {
    "HEAD_TIMEOUT_SECONDS": "10", "REQUEST_BODY_TIMEOUT_SECONDS": "30", "KEEP_ALIVE_SECONDS": "10",
    "MAX_REQUEST_BYTES": str(16 * KIB * KIB), "MAX_RESPONSE_BYTES": str(32 * KIB * KIB), "REQUESTS_BYTES": str(128 * KIB * KIB),
    "STREAM_TIMEOUT_SECONDS": "3600", "WRITE_TIMEOUT_SECONDS": "30", "READ_TIMEOUT_SECONDS": "60",
    "IDLE_TIMEOUT_SECONDS": "300", "RESPONSE_TIMEOUT_SECONDS": "60", "POOL_TIMEOUT_SECONDS": "30",
}  # fmt: skip
MARKS = ("<!-- bounds: written by make bounds -->", "<!-- end of bounds -->")

Peer = Callable[[socket.socket], Awaitable[None]]


def asked(model: str, *, stream: bool = True) -> bytes:
    body = b'{"model": "%b", "stream": %b, "messages": []}' % (model.encode(), b"true" if stream else b"false")
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body) + body


POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"


def sends(first: bytes, again: bytes) -> Peer:
    """Sends as much as is taken, and reads nothing."""

    async def peer(connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, first)
        while again:
            await loop.sock_sendall(connection, again)
        await asyncio.sleep(3600)

    return peer


CLIENTS: dict[str, Peer] = {
    "a head without end, of short lines": sends(b"GET / HTTP/1.1\r\n", b"a:\r\n" * 64),
    "a head without end, of one line": sends(b"GET / HTTP/1.1\r\nx: ", b"x" * 1024),
    "a body that is never whole": sends(POST + b"content-length: 16000000\r\n\r\n", b" " * 50_000),
    "a body of chunks without end": sends(POST + b"transfer-encoding: chunked\r\n\r\n", b"1000\r\n" + b" " * 4096 + b"\r\n"),
    "a body that nobody reads": sends(
        b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999\r\n\r\n", b" " * 50_000
    ),
    "trailers without end": sends(POST + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 200),
    "thousands of requests at once": sends(b"", b"GET /v1/nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n" * 1000),
    "never reads a stream": sends(asked("endless_body:1:1"), b""),
    "never reads an answer of 31 MiB": sends(asked("large_answer:1:1", stream=False), b""),
}  # fmt: skip
UPSTREAMS: dict[str, Peer] = {
    name: sends(asked(f"{fault}:1:1", stream=stream), b"")
    for name, fault, stream in (
        ("a head without end", "endless_head", True),
        ("informational answers without end", "endless_informational", True),
        ("an event without end", "endless_event", True),
        ("trailers without end", "endless_trailers", True),
        ("a chunk's head without end", "endless_chunk_head", True),
        ("a refusal without end", "endless_refusal", False),
    )
}


async def measure(relay: Relay, peer: Peer, count: int, seconds: float) -> float:
    """KiB of resident memory for each of `count` peers, at most, within so many seconds."""
    before = relay.read_rss()
    most = before
    tasks = [asyncio.create_task(_one(relay, peer, number)) for number in range(count)]
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0.05)
        most = max(most, relay.read_rss())
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return (most - before) / count / KIB


async def _one(relay: Relay, peer: Peer, number: int) -> None:
    await asyncio.sleep(number / 1000)  # not all in one moment: the backlog is not what is measured
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, relay.address)
            await peer(connection)
        except OSError:
            return  # it was refused: as it should be


async def idle(relay: Relay, count: int, request: bytes) -> tuple[float, float]:
    """KiB for each of `count` connections that say nothing more, and the seconds after which the last of them was closed."""
    loop = asyncio.get_running_loop()
    before = relay.read_rss()
    connections = []
    for number in range(count):
        connection = socket.socket()
        connection.setblocking(False)
        await loop.sock_connect(connection, relay.address)
        if request:
            await loop.sock_sendall(connection, request)
            await loop.sock_recv(connection, 4096)
        connections.append(connection)
        if number % 100 == 0:
            await asyncio.sleep(0)
    began = loop.time()
    held = (relay.read_rss() - before) / count / KIB
    await asyncio.gather(*(_closed(connection) for connection in connections))
    return held, loop.time() - began


async def _closed(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(120):
            while await loop.sock_recv(connection, 4096):
                pass
    except ConnectionResetError:
        pass
    finally:
        connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--only", default="", help="some kinds, by a part of their names, by commas")
    parser.add_argument("--write", type=Path, help="put the table into this document")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = [part for part in options.only.split(",") if part]
    rows, failed = [], False
    with Surroundings.started() as surroundings:
        for side, peers in (("client", CLIENTS), ("upstream", UPSTREAMS)):
            for name, peer in peers.items():
                if wanted and not any(part in name for part in wanted):
                    continue
                relay = Relay.start(surroundings, **SETTINGS)
                held = asyncio.run(measure(relay, peer, options.peers, options.seconds))
                relay.end()
                failed |= held > ALLOWED_KIB
                rows.append(f"| {side}: {name} | {options.peers:,} | {held:.1f} | {ALLOWED_KIB} | |")
                print(rows[-1], flush=True)
        for name, request in (
            ("silent", b""),
            ("idle after a request", b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        ):
            if options.idle and (not wanted or any(part in name for part in wanted)):
                relay = Relay.start(surroundings, **SETTINGS)
                held, seconds = asyncio.run(idle(relay, options.idle, request))
                relay.end()
                failed |= held > IDLE_KIB
                rows.append(f"| client: {name} | {options.idle:,} | {held:.1f} | {IDLE_KIB} | {seconds:.1f} |")
                print(rows[-1], flush=True)
    about = (
        f"Measured on {datetime.datetime.now(datetime.UTC).date()}: {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load average at the end {os.getloadavg()[0]:.1f}."
    )
    head = (
        "| who, and what | of them | KiB of RSS each, at most | allowed | all closed after (s) |\n|---|---|---|---|---|"
    )
    text = "\n".join((about, "", head, *rows))
    if options.write:
        write(options.write, text, MARKS)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
