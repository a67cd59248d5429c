"""What the kernel holds for a service's connections: /proc/net/tcp and tcp6, read once for everybody and joined by inode.

A system call for each socket, inside the service, would give the GIL away a thousand times; this costs the service
nothing. The join is by inode, never by address: behind a proxy an app knows its client by the forwarded address, and on
loopback the peer's socket has a row of its own.

The table's columns: Documentation/networking/proc_net_tcp.rst of the Linux kernel.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Served", "Sockets", "TcpSocket", "parse"]

# Several workers are read within one scrape; they share one table of this age.
_SHARED_SECONDS = 0.1
_ESTABLISHED, _LISTEN = 1, 10
_TABLES = ("tcp", "tcp6")


class TcpSocket(NamedTuple):
    """One row.

    state    the kernel's number: 1 established, 10 listening
    unsent   bytes written and not yet acknowledged by the peer (tx_queue); of a listening socket always 0
    unread   bytes received and not yet read (rx_queue); of a listening socket, connections not yet accepted
    """

    local_port: int
    state: int
    unsent: int
    unread: int


class Served(NamedTuple):
    """Connections that a process holds on the ports that it listens on; `outgoing` are its others."""

    ports: tuple[int, ...]
    connections: int
    kernel_bytes: int
    outgoing: int = 0


def parse(text: str) -> dict[int, TcpSocket]:
    """The rows of one table by inode. Rows without an inode (closed by their process) and malformed ones are left out."""
    rows: dict[int, TcpSocket] = {}
    for line in text.splitlines()[1:]:
        columns = line.split(None, 10)
        try:
            inode = int(columns[9])
            unsent, unread = columns[4].split(":")
            if inode:
                port = int(columns[1].rpartition(":")[2], 16)
                rows[inode] = TcpSocket(port, int(columns[3], 16), int(unsent, 16), int(unread, 16))
        except (IndexError, ValueError):  # the kernel cuts the table where a page ends while sockets come and go
            continue
    return rows


class Sockets:
    """Reads tables and descriptors; `proc` is another folder in tests."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._shared: dict[str, tuple[float, dict[int, TcpSocket]]] = {}

    def table(self, pid: int) -> dict[int, TcpSocket]:
        """All TCP sockets of the network namespace that `pid` lives in, by inode; empty where it cannot be read."""
        namespace = self._link(f"{pid}/ns/net")
        now = time.monotonic()
        read, rows = self._shared.get(namespace, (float("-inf"), {}))
        if now - read < _SHARED_SECONDS:
            return rows
        rows = {}
        for name in _TABLES:
            try:
                rows.update(parse((self._proc / str(pid) / "net" / name).read_text()))
            except OSError:  # no IPv6, or the process has ended
                continue
        self._shared = {key: entry for key, entry in self._shared.items() if now - entry[0] < _SHARED_SECONDS}
        self._shared[namespace] = (now, rows)
        return rows

    def unsent(self, pid: int, descriptors: Iterable[int]) -> dict[int, int]:
        """Bytes in the kernel's send queue for each descriptor of `pid` that is an established TCP connection."""
        table = self.table(pid)
        found: dict[int, int] = {}
        for descriptor in descriptors:
            row = table.get(_inode(self._link(f"{pid}/fd/{descriptor}")))
            if row is not None and row.state == _ESTABLISHED:
                found[descriptor] = row.unsent
        return found

    def served(self, pid: int) -> Served:
        """What `pid` listens on and how many clients are connected there."""
        table = self.table(pid)
        own = [table[inode] for inode in self.inodes(pid) if inode in table]
        ports = {row.local_port for row in own if row.state == _LISTEN}
        clients = [row for row in own if row.state == _ESTABLISHED and row.local_port in ports]
        outgoing = sum(row.state == _ESTABLISHED for row in own) - len(clients)
        return Served(tuple(sorted(ports)), len(clients), sum(row.unsent for row in clients), outgoing)

    def listeners(self, pid: int) -> set[int]:
        """Inodes of the listening TCP sockets that `pid` holds."""
        table = self.table(pid)
        return {inode for inode in self.inodes(pid) if inode in table and table[inode].state == _LISTEN}

    def inodes(self, pid: int) -> set[int]:
        """Inodes of all sockets that `pid` holds; empty for another user's process."""
        try:
            names = os.listdir(self._proc / str(pid) / "fd")  # noqa: PTH208  # thousands of names, no Path for each
        except OSError:
            return set()
        return {_inode(self._link(f"{pid}/fd/{name}")) for name in names} - {0}

    def _link(self, path: str) -> str:
        try:
            return os.readlink(f"{self._proc}/{path}")  # noqa: PTH115  # as above
        except OSError:  # closed since, or not ours to read
            return ""


def _inode(link: str) -> int:
    """Of `socket:[12345]`; 0 for anything else."""
    return int(link[8:-1]) if link.startswith("socket:[") else 0
