"""Puts a mix of clients on a service, over real sockets, and counts what they saw.

Each client is one HTTP/1.1 connection at a time: a socket, `httptools` to parse the answer, a count of events. How
clients differ is said in `mix`. Events are counted as blank lines (WHATWG HTML, server-sent events, 9.2.6), which is
all that a load needs to know of them.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

import httptools

from .address import Address, Message
from .mix import Behavior, Leaves, Mix, NeverReads, Resets, Slow

__all__ = ["EventCount", "LoadReport", "Request", "run_load"]

# How often a slow reader reads; its pace is kept over such steps.
_SLOW_STEP_SECONDS = 0.1
_READ_BYTES = 64 * 1024
_CONNECT_SECONDS = 5.0
# RFC 6585, 4 and RFC 9110, 15.6.4: come back later.
_REJECTED = (429, 503)


@dataclass(frozen=True, slots=True)
class Request:
    """What every client sends, but for the Host line."""

    path: str
    message: Message = field(default_factory=Message)

    @classmethod
    def chat(cls, path: str, model: str) -> Request:
        """A streamed chat completion as OpenAI's clients ask for it."""
        question = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Count."}]}
        return cls(path, Message("POST", json.dumps(question).encode()))

    def encode(self, host: str, port: int) -> bytes:
        return self.message.encode(Address("http", host, port, self.path), connection="close")


@dataclass
class LoadReport:
    """What the clients saw.

    streams    streams that were asked for
    outcomes   how they ended: `completed` (the service ended it), `left` (the client did, as it should), `time_up`,
               `rejected` (429 or 503: the service takes no more), `failed`
    errors     what failed: `connect`, `status_500`, `reset`, `cut_off`, `malformed`
    longest    seconds of the longest stream that was not cut off by the end of the load; 0 where there was none
    """

    seconds: float = 0.0
    streams: int = 0
    events: int = 0
    bytes: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0

    @property
    def ended(self) -> int:
        """Streams that are over."""
        return self.outcomes.total()

    def add(self, other: LoadReport) -> None:
        """Count in what the clients of another load on the same service saw."""
        self.seconds += other.seconds
        self.streams += other.streams
        self.events += other.events
        self.bytes += other.bytes
        self.outcomes += other.outcomes
        self.errors += other.errors
        self.longest = max(self.longest, other.longest)

    def to_json(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "streams": self.streams,
            "events": self.events,
            "bytes": self.bytes,
            "outcomes": dict(self.outcomes),
            "errors": dict(self.errors),
        }


class EventCount:
    """Counts the blank lines in a stream of bytes, wherever it is cut and whichever line ending it has."""

    def __init__(self) -> None:
        self.events = 0
        self._line_is_empty = True
        self._line_has_begun = False
        self._after_cr = False

    @property
    def between_events(self) -> bool:
        """Whether what comes next begins an event."""
        return self._line_is_empty and not self._line_has_begun

    def feed(self, data: bytes) -> None:
        # A line at a time, not a byte at a time: events are kilobytes long.
        if not data:
            return
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines[:-1]:
            if line or not self._line_is_empty:
                self._line_has_begun = True
            elif self._line_has_begun:
                self.events += 1
                self._line_has_begun = False
            self._line_is_empty = True
        if lines[-1]:
            self._line_is_empty = False


async def run_load(
    host: str,
    port: int,
    request: Request,
    mix: Mix,
    *,
    until: asyncio.Event,
    most_seconds: float,
    finish: Callable[[float], float] = lambda longest: 0.0,
    seed: int = 0,
    report: LoadReport | None = None,
) -> LoadReport:
    """Put `mix` on the service until `until` is set, all streams have ended, or `most_seconds` are over.

    From then on no client opens another stream, and those that are open have so many seconds to end as `finish` gives for the
    longest stream that has ended (0: none has): a stream that is cut off may not leave behind what a whole one does. Clients
    whose stream is still open after that close their sockets. What fails is counted in the report and raises nothing: to judge
    it is the caller's business. `seed` fixes when each client comes. A given `report` is filled meanwhile, and returned.
    """
    report = LoadReport() if report is None else report
    start = time.monotonic()
    over = asyncio.Event()
    arrivals = random.Random(seed)  # noqa: S311 -- arrival times, no secrets
    clients = [
        asyncio.create_task(
            _client(
                _Connection(host, port, request, behavior, report),
                arrivals.uniform(0, mix.arrival_seconds),
                over if mix.again else None,
            )
        )
        for behavior in mix.each()
    ]
    everyone = asyncio.create_task(asyncio.wait(clients))
    told = asyncio.create_task(until.wait())
    either: tuple[asyncio.Task[Any], ...] = (everyone, told)
    try:
        await asyncio.wait(either, timeout=most_seconds, return_when=asyncio.FIRST_COMPLETED)
        over.set()
        if (patience := finish(report.longest)) > 0:
            await asyncio.wait((everyone,), timeout=patience)
    finally:
        for task in (*either, *clients):
            task.cancel()
        results = await asyncio.gather(*either, *clients, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    report.seconds = time.monotonic() - start
    return report


async def _client(connection: _Connection, delay: float, over: asyncio.Event | None) -> None:
    """One stream, or one after the other until `over` is set."""
    await asyncio.sleep(delay)
    await connection.stream()
    # A service that fails at once must not turn its clients into a busy loop.
    while over is not None and not await _set_within(over, 0.01):
        await connection.stream()


async def _set_within(over: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await over.wait()
    return over.is_set()


class _Connection:
    """One client: opens a socket for each stream and closes it."""

    def __init__(self, host: str, port: int, request: Request, behavior: Behavior, report: LoadReport) -> None:
        self._address = (host, port)
        self._payload = request.encode(host, port)
        self._behavior = behavior
        self._report = report

    async def stream(self) -> None:
        """One stream, from connect to close, with its outcome in the report."""
        self._report.streams += 1
        began = time.monotonic()
        outcome, error = "failed", None
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                sock.setblocking(False)
                if isinstance(self._behavior, Slow | NeverReads):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._behavior.receive_buffer_bytes)
                error = await self._connect(sock)
                if error is None:
                    outcome, error = await self._read_in_time(sock)
        except asyncio.CancelledError:
            outcome = "time_up"
            raise
        except httptools.HttpParserError:
            error = "malformed"
        except OSError:
            error = "reset"
        finally:
            self._report.outcomes[outcome] += 1
            if outcome in ("completed", "left"):
                self._report.longest = max(self._report.longest, time.monotonic() - began)
            if error is not None:
                self._report.errors[error] += 1

    async def _connect(self, sock: socket.socket) -> str | None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.sock_connect(sock, self._address)
        except OSError:
            return "connect"
        await loop.sock_sendall(sock, self._payload)
        return None

    async def _read_in_time(self, sock: socket.socket) -> tuple[str, str | None]:
        if not isinstance(self._behavior, Resets):
            return await self._read(sock)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._behavior.after_seconds):
                return await self._read(sock)
        # Closing with a linger time of nothing throws away what is unsent and resets (socket(7), SO_LINGER).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return "left", None

    async def _read(self, sock: socket.socket) -> tuple[str, str | None]:
        if isinstance(self._behavior, NeverReads):
            await asyncio.get_running_loop().create_future()
        answer = _Answer(self._report)
        parser = httptools.HttpResponseParser(answer)
        async with aclosing(_paced(sock, self._behavior)) as pieces:
            async for data in pieces:
                self._report.bytes += len(data)
                parser.feed_data(data)
                if answer.begun and (status := parser.get_status_code()) >= 400:
                    return "rejected" if status in _REJECTED else "failed", f"status_{status}"
                if answer.complete:
                    return "completed", None
                if isinstance(self._behavior, Leaves) and answer.count.events >= self._behavior.after_events:
                    return "left", None
        return "failed", "cut_off"


async def _paced(sock: socket.socket, behavior: Behavior) -> AsyncGenerator[bytes, None]:
    """The socket's bytes, at the pace of this client, until the peer closes."""
    loop = asyncio.get_running_loop()
    if not isinstance(behavior, Slow):
        while data := await loop.sock_recv(sock, _READ_BYTES):
            yield data
        return
    step = max(1, int(behavior.bytes_per_second * _SLOW_STEP_SECONDS))
    due = loop.time()
    while data := await loop.sock_recv(sock, step):
        yield data
        # By what was read, not by how often: a short read earns a short pause.
        due = max(due, loop.time() - _SLOW_STEP_SECONDS) + len(data) / behavior.bytes_per_second
        await asyncio.sleep(max(0.0, due - loop.time()))


class _Answer:
    """What httptools calls: the body goes to the event count and is forgotten."""

    def __init__(self, report: LoadReport) -> None:
        self.begun = False
        self.complete = False
        self.count = EventCount()
        self._report = report

    def on_headers_complete(self) -> None:
        self.begun = True

    def on_body(self, body: bytes) -> None:
        before = self.count.events
        self.count.feed(body)
        self._report.events += self.count.events - before

    def on_message_complete(self) -> None:
        self.complete = True
