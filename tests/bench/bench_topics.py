"""One topic with very many subscribers over two relays that share it through Redis: what comes, how late, and what it costs.

    python tests/bench/bench_topics.py [--subscribers 1000] [--rate 20] [--seconds 10]

Half of the subscribers are at each relay, and events are published at both in turn. Each subscriber has to get every event
once, and all of them in the same order; the command fails where one does not. An event carries the time at which it was
published: how late it comes is measured by this program, which reads all connections and is late itself on a busy machine. The
relays share one core, Redis has the other with this program. Needs redis-server (Debian: redis-server).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import multiprocessing
import os
import re
import selectors
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sidebyside.processes import RELAY_CORE, ROOT, Started, cpu_seconds, free_port, started, wait_for_port
from sidebyside.redis_server import redis_server

TOPIC = "/v1/topics/news"
DATA = re.compile(rb"data: (\d+) (\d+) ")
PADDING = "x" * 100
PUBLISHERS = 16
# How long after the last event is published it may come.
PATIENCE_SECONDS = 120.0


class Subscriber:
    """One subscriber's connection, and what has come over it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.sendall(f"GET {TOPIC} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.read = bytearray(self.socket.recv(65536))
        if b" 200 " not in self.read[:20]:
            raise SystemExit(f"a subscriber was refused: {bytes(self.read[:300])!r}")
        self.socket.setblocking(False)

    def take(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise SystemExit(f"a subscriber was ended: {bytes(self.read[-300:])!r}")
        self.read += data
        now = time.monotonic_ns()
        late.extend((now - int(found[2])) / 1e6 for found in DATA.finditer(data))

    @property
    def numbers(self) -> list[int]:
        return [int(found[1]) for found in DATA.finditer(self.read)]


late: list[float] = []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20.0, help="events a second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for which is published (default: %(default)s)")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        redis = opened.enter_context(redis_server(folder))
        relays = [opened.enter_context(_relay(redis, folder / str(number))) for number in range(2)]
        subscribers = [Subscriber(relays[number % 2][1]) for number in range(arguments.subscribers)]
        selector = selectors.DefaultSelector()
        for subscriber in subscribers:
            selector.register(subscriber.socket, selectors.EVENT_READ, subscriber)
        events = round(arguments.rate * arguments.seconds)
        before = [cpu_seconds(process.pid) for process, _ in relays]
        began = time.monotonic()
        # A process of its own: this one is busy with reading.
        publisher = multiprocessing.get_context("spawn").Process(
            target=_publish, args=([port for _, port in relays], events, arguments.rate), daemon=True
        )
        publisher.start()
        until = began + arguments.seconds + PATIENCE_SECONDS
        while len(late) < events * len(subscribers) and time.monotonic() < until:
            for key, _ in selector.select(1.0):
                key.data.take()
        took = time.monotonic() - began
        spent = [cpu_seconds(process.pid) - was for (process, _), was in zip(relays, before, strict=True)]
        publisher.join()
        order = subscribers[0].numbers
        wrong = sum(sorted(order) != list(range(events)) or one.numbers != order for one in subscribers)
    deliveries = events * len(subscribers)
    quantiles = statistics.quantiles(late, n=100)
    print(
        f"{arguments.subscribers} subscribers at two relays, {events} events at {arguments.rate:g}/s, all within {took:.1f} s"
    )
    print(f"subscribers that did not get every event once and in the order of all: {wrong}")
    print(
        f"late by: median {quantiles[49]:.0f} ms, 99 of 100 within {quantiles[98]:.0f} ms, at most {max(late):.0f} ms"
    )
    print(
        f"CPU of the relays: {sum(spent) / deliveries * 1e6:.1f} us per delivery, {sum(spent) / took:.2f} cores together"
    )
    print(f"{os.cpu_count()} cores, load average at the end {os.getloadavg()[0]:.1f}")
    return 1 if wrong else 0


def _publish(ports: list[int], events: int, rate: float) -> None:
    """Publish on time: over several connections, since the answer to one event may come after the next one is due."""
    own = threading.local()

    def publish(number: int) -> None:
        if not hasattr(own, "connections"):
            own.connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for port in ports]
        connection = own.connections[number % len(ports)]
        body = f"{number} {time.monotonic_ns()} {PADDING}"
        connection.request("POST", TOPIC, body, {"Content-Type": "text/plain"})
        answer = connection.getresponse()
        told = answer.read()
        if answer.status != 201:
            raise SystemExit(f"event {number} was refused: {told[:300]!r}")

    began = time.monotonic()
    with ThreadPoolExecutor(PUBLISHERS) as pool:
        published = []
        for number in range(events):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            published.append(pool.submit(publish, number))
        for one in published:
            one.result()


@contextlib.contextmanager
def _relay(redis: int, folder: Path) -> Iterator[tuple[Started, int]]:
    folder.mkdir()
    port = free_port()
    env = {
        "PYTHONPATH": str(ROOT),
        "RELAY_UPSTREAM_BASE_URL": "http://127.0.0.1:9/v1",
        "RELAY_REDIS_URL": f"redis://127.0.0.1:{redis}/0",
        "RELAY_REDIS_TIMEOUT_SECONDS": "20",  # a busy machine is no Redis that is away
        "DIAGNOSTICS_DIR": str(folder / "diagnostics"),
    }
    command = [sys.executable, "-m", "relay", "serve", "--port", str(port), "--no-diagnostics"]
    with started(command, RELAY_CORE, env, cwd=folder) as process:
        wait_for_port(port, process, 120)
        yield process, port


if __name__ == "__main__":
    sys.exit(main())
