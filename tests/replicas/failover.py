"""A Redis that fails over: a primary, a replica and Sentinel, and HAProxy where it is wanted, as docs/deploy has them."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from diagnostics.proof.subjects.processes import free_port

from .cluster import Process, start_redis

__all__ = ["FailOver"]

EXAMPLES = Path(__file__).parents[2] / "docs" / "deploy"
START_SECONDS = 120.0
FOR_EVER_MILLISECONDS = 3_600_000


class FailOver:
    """`url` names the Sentinel, or HAProxy: the one address for whichever Redis is the primary."""

    def __init__(self, folder: Path, *, by_haproxy: bool) -> None:
        self._folder = folder
        self._by_haproxy = by_haproxy
        self._there = {"6379": free_port(), "26379": free_port(), "6391": free_port(), "6392": free_port()}
        # Of two Sentinels the first is not there: the relay asks the next one.
        sentinels = f"127.0.0.1:{free_port()},127.0.0.1:{self._there['26379']}"
        self.url = (
            f"redis://127.0.0.1:{self._there['6379']}/0" if by_haproxy else f"redis+sentinel://{sentinels}/relay/0"
        )
        self._redis: dict[int, Process] = {}
        self._others: list[Process] = []

    @staticmethod
    @contextmanager
    def started(folder: Path, *, by_haproxy: bool) -> Iterator[FailOver]:
        store = FailOver(folder, by_haproxy=by_haproxy)
        try:
            store.start()
            yield store
        finally:
            store.end()

    def start(self) -> None:
        first, second = self._there["6391"], self._there["6392"]
        self._redis[first] = start_redis(self._folder, "redis-a", first)
        self._redis[second] = start_redis(self._folder, "redis-b", second, "--replicaof", "127.0.0.1", str(first))
        sentinel = self._example("sentinel.conf")
        self._others.append(Process(self._folder, "sentinel", "redis-server", sentinel, "--sentinel"))
        self._until(lambda: b"master_link_status:up" in self._said(second, "INFO replication"))
        # A replica that Sentinel does not know of yet cannot be promoted.
        self._until(lambda: b"slaves=1" in self._said(self._there["26379"], "INFO sentinel"))
        if self._by_haproxy:
            self._others.append(Process(self._folder, "haproxy", "haproxy", "-db", "-f", self._example("haproxy.cfg")))
            self._until(self._haproxy_has_it)

    def kill_primary(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """By SIGKILL. There is no other primary before `meanwhile` returns; returns when there is one, and HAProxy has it."""
        patience = self._patience
        self._patience = FOR_EVER_MILLISECONDS
        primary = self._primary()
        self._redis.pop(primary).end()
        meanwhile()
        self._patience = patience
        self._until(lambda: self._primary() not in (0, primary))
        if self._by_haproxy:
            self._until(self._haproxy_has_it)

    def _haproxy_has_it(self) -> bool:
        return b"role:master" in self._said(self._there["6379"], "INFO replication")

    def end(self) -> None:
        for process in (*self._others, *self._redis.values()):
            process.end()

    @property
    def _patience(self) -> int:
        """For how many milliseconds the primary may be silent before Sentinel promotes the other one."""
        said = self._said(self._there["26379"], "SENTINEL master relay")
        return int(said.split(b"\r\ndown-after-milliseconds\r\n")[1].split(b"\r\n")[1])

    @_patience.setter
    def _patience(self, milliseconds: int) -> None:
        said = self._said(self._there["26379"], f"SENTINEL SET relay down-after-milliseconds {milliseconds}")
        assert said == b"+OK\r\n", said

    def _primary(self) -> int:
        """The port of the Redis that is the primary by Sentinel's word; 0 where it says nothing."""
        said = self._said(self._there["26379"], "SENTINEL get-master-addr-by-name relay")
        return int(said.split(b"\r\n")[-2]) if said else 0

    def _example(self, name: str) -> Path:
        """A file of docs/deploy with the addresses of this test."""
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        path = self._folder / name
        path.write_text(
            re.sub(r"\b(26379|6379|6391|6392)\b", lambda port: str(self._there[port[0]]), text), encoding="utf-8"
        )
        return path

    def _said(self, port: int, command: str) -> bytes:
        """The reply to a command; b"" where nobody replies."""
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(command.encode() + b"\r\n")
                return connection.recv(1 << 16)
        except OSError:
            return b""

    def _until(self, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + START_SECONDS
        while not holds():
            if time.monotonic() > until:
                said = self._said(self._there["26379"], "INFO sentinel")
                raise TimeoutError(f"Redis did not fail over; Sentinel says {said!r}")
            time.sleep(0.1)
