"""The kernel's queues of a service's connections: the table of TCP sockets, read once for all callers and joined by inode.

A system call for each socket, inside the service, would release the GIL a thousand times; reading the table here costs the
service nothing. The join is by inode, never by address: behind a proxy an app has its client's forwarded address, and on
loopback the peer's socket has a row of its own.

By netlink where the service is in the monitor's own network namespace, else from /proc/<pid>/net/tcp and tcp6, whose
columns are in Documentation/networking/proc_net_tcp.rst of the Linux kernel.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from .sockdiag import ESTABLISHED, LISTEN, TcpSocket, dump

__all__ = ["Served", "Sockets", "TcpSocket", "parse"]

# Seconds for which a table is reused: one scrape reads several workers.
_SHARED_SECONDS = 0.1
# A reading of more CPU seconds than the first is reused for so many times its cost, and so takes an eightieth of a core:
# ten thousand sockets, 15 ms, for a second and more.
_DEAR_SECONDS, _SHARED_COSTS = 0.01, 80.0
# Seconds for which a descriptor's link is not read again: one takes three microseconds, and each connection has one.
_KNOWN_SECONDS = 30.0
_TABLES = ("tcp", "tcp6")
_EMPTY = "00000000:00000000"


class Served(NamedTuple):
    """A process's connections to its listening ports; `kernel_bytes` in their queues; `outgoing`: its other connections."""

    ports: tuple[int, ...]
    connections: int
    kernel_bytes: int
    outgoing: int = 0


def parse(text: str) -> dict[int, TcpSocket]:
    """inode -> row of one /proc/net/tcp table. Malformed rows and rows without an inode (closed sockets) are left out."""
    rows: dict[int, TcpSocket] = {}
    for line in text.splitlines()[1:]:
        columns = line.split(None, 10)
        try:
            inode = int(columns[9])
            if inode:
                queues = columns[4]
                unsent, unread = (0, 0) if queues == _EMPTY else (int(part, 16) for part in queues.split(":"))
                rows[inode] = TcpSocket(int(columns[1][-4:], 16), int(columns[3], 16), unsent, unread)
        except (IndexError, ValueError):  # a row may be cut at a page's end while sockets come and go
            continue
    return rows


class Sockets:
    """Reads socket tables and descriptors. `proc`: another folder in tests."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = str(proc)
        self._shared: dict[str, _Shared] = {}
        self._known: dict[int, _Known] = {}

    def table(self, pid: int, *, again: bool = False) -> dict[int, TcpSocket]:
        """All TCP sockets of the network namespace of `pid`, by inode; empty where it cannot be read.

        again   read now, without the cache
        """
        key = f"table {self._link(f'{pid}/ns/net')}"
        if again:
            self._shared.pop(key, None)
        return self._share(key, lambda: self._read_table(pid), _SHARED_SECONDS)

    def unsent(self, pid: int, descriptors: Iterable[int]) -> dict[int, int]:
        """Bytes in the kernel's send queue for each descriptor of `pid` that is an established TCP connection.

        The descriptors' links are read anew every time: a service reuses the number of a closed connection, and the bytes
        of one connection must not be reported for another. Where the cached table is older than a connection, it is read
        again.
        """
        inodes = self._inodes_now(pid, descriptors)
        table = self.table(pid)
        if not table.keys() >= set(inodes.values()):
            table = self.table(pid, again=True)
        rows = {descriptor: table[inode] for descriptor, inode in inodes.items() if inode in table}
        return {descriptor: row.unsent for descriptor, row in rows.items() if row.state == ESTABLISHED}

    def served(self, pid: int) -> Served:
        """The ports that `pid` listens on, and its connections."""
        table = self.table(pid)
        own = [table[inode] for inode in self.inodes(pid) if inode in table]
        ports = {row.local_port for row in own if row.state == LISTEN}
        clients = [row for row in own if row.state == ESTABLISHED and row.local_port in ports]
        outgoing = sum(row.state == ESTABLISHED for row in own) - len(clients)
        return Served(tuple(sorted(ports)), len(clients), sum(row.unsent for row in clients), outgoing)

    def listeners(self, pid: int) -> set[int]:
        """Inodes of the listening TCP sockets of `pid`."""
        table = self.table(pid)
        return {inode for inode in self.inodes(pid) if inode in table and table[inode].state == LISTEN}

    def why_hidden(self, pid: int) -> str | None:
        """A sentence why the sockets of process `pid` cannot be read; None where they can."""
        try:
            os.close(os.open(f"{self._proc}/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY))
        except PermissionError:
            return (
                f"the kernel does not let uid {os.geteuid()} see the descriptors of process {pid}: it is another user's, or "
                "has changed its user since its start; run the monitor as root, or with CAP_SYS_PTRACE"
            )
        except OSError:
            return f"process {pid} has ended"
        return None

    def inode(self, pid: int, descriptor: int) -> int:
        """The inode of the socket at descriptor `descriptor` of `pid`; 0 where it is no socket."""
        return int(self._descriptors(pid).get(descriptor, 0))

    def inodes(self, pid: int) -> set[int]:
        """Inodes of all sockets of `pid`; empty for another user's process."""
        return set(self._descriptors(pid).values())

    def _descriptors(self, pid: int) -> dict[int, int]:
        """descriptor -> inode of each socket of `pid`."""
        return self._share(f"descriptors {pid}", lambda: self._read_descriptors(pid), 0.0)

    def _inodes_now(self, pid: int, descriptors: Iterable[int]) -> dict[int, int]:
        """descriptor -> inode of those descriptors that are sockets, read now."""
        links = {descriptor: _inode(self._link(f"{pid}/fd/{descriptor}")) for descriptor in descriptors}
        return {descriptor: inode for descriptor, inode in links.items() if inode}

    def _share(self, key: str, read: Callable[[], dict[int, Any]], least: float) -> dict[int, Any]:
        """The cached result of `read`, valid for `least` seconds, or for `_SHARED_COSTS` times its CPU time if it is costly."""
        shared = self._shared.get(key)
        if shared is not None and time.monotonic() < shared.good_until:
            return shared.rows
        began = time.thread_time()  # CPU time: on a busy machine wall-clock time is not the cost
        rows = read()
        took, now = time.thread_time() - began, time.monotonic()
        good = max(least, _SHARED_COSTS * took if took > _DEAR_SECONDS else 0.0)
        self._shared = {name: entry for name, entry in self._shared.items() if now < entry.good_until}
        self._shared[key] = _Shared(now + good, rows)
        return rows

    def _read_table(self, pid: int) -> dict[int, TcpSocket]:
        own = self._link("self/ns/net")
        if own and own == self._link(f"{pid}/ns/net"):
            with suppress(
                OSError
            ):  # no such kernel module, or forbidden by a sandbox: the /proc tables have the same rows
                return dump()
        rows: dict[int, TcpSocket] = {}
        for name in _TABLES:
            try:
                rows.update(parse(Path(f"{self._proc}/{pid}/net/{name}").read_text(encoding="utf-8")))
            except OSError:  # no IPv6, or the process has ended
                continue
        return rows

    def _read_descriptors(self, pid: int) -> dict[int, int]:
        """Reads the links of new descriptors, and of all every `_KNOWN_SECONDS`.

        A known descriptor is taken for the same connection while the table has its inode. That is wrong where another
        process (a forked child) holds the connection, and this one closed it and reused the number. For totals that is
        near enough; `unsent` uses `_inodes_now`.
        """
        known, table, now = self._known.get(pid), self.table(pid), time.monotonic()
        if known is None or now > known.good_until:
            known = _Known(now + _KNOWN_SECONDS, {})
        inodes: dict[int, int] = {}
        try:
            folder = os.open(f"{self._proc}/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return inodes
        try:
            for name in os.listdir(folder):  # noqa: PTH208  # thousands of names, no Path for each
                descriptor = int(name)
                inode = known.inodes.get(descriptor, 0)
                if inode not in table:
                    try:
                        inode = _inode(os.readlink(name, dir_fd=folder))  # as above
                    except OSError:  # closed since
                        continue
                if inode:
                    inodes[descriptor] = inode
        finally:
            os.close(folder)
        self._known = {each: entry for each, entry in self._known.items() if now <= entry.good_until}
        self._known[pid] = known._replace(inodes=inodes)
        return inodes

    def _link(self, path: str) -> str:
        try:
            return os.readlink(f"{self._proc}/{path}")  # noqa: PTH115  # as above
        except OSError:  # closed since, or not ours to read
            return ""


class _Shared(NamedTuple):
    good_until: float
    rows: dict[int, Any]


class _Known(NamedTuple):
    """The inodes of a process's descriptors as they were last read."""

    good_until: float
    inodes: dict[int, int]


def _inode(link: str) -> int:
    """12345 of `socket:[12345]`; 0 for any other link."""
    return int(link[8:-1]) if link.startswith("socket:[") else 0
