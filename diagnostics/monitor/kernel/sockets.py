"""The kernel's queues of a service's connections: the table of TCP sockets, read once for all callers and joined by inode.

A system call for each socket, inside the service, would release the GIL a thousand times; reading the table here costs the
service nothing. The join is by inode, never by address: behind a proxy an app has its client's forwarded address, and on
loopback the peer's socket has a row of its own.

By netlink where the service is in the monitor's own network namespace, else from /proc/<pid>/net/tcp and tcp6, whose
columns are in Documentation/networking/proc_net_tcp.rst of the Linux kernel.

The kernel goes through its whole table for a reading, which has places by the machine's memory,
not by its connections. So the few connections of a small service, once they are known, are looked up one by one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .sockdiag import ESTABLISHED, LISTEN, SocketId, TcpSocket, dump, now_of

__all__ = ["Served", "Sockets", "TcpSocket", "parse"]

# Seconds for which a table is reused: one scrape reads several workers.
_SHARED_SECONDS = 0.1
# A reading of more CPU seconds than the first is reused for so many times its cost, and so takes an eightieth of a core:
# ten thousand sockets, 15 ms, for a second and more.
_DEAR_SECONDS, _SHARED_COSTS = 0.01, 80.0
# What a process with more sockets than `_FEW` serves is told again after so many times the CPU time that it took, half
# a per cent of a core, and after so many seconds at the latest.
_SERVED_COSTS, _SERVED_SECONDS = 200.0, 5.0
# Seconds for which a descriptor's link is not read again: one takes three microseconds, and each connection has one.
_KNOWN_SECONDS = 30.0
# More sockets than this are read with the whole table: one takes five microseconds, a table of 262,144 places 1.5 ms and more.
_FEW = 256
# Seconds after which a socket that was in no table is looked for again at the earliest; later after as long again as it has
# been in none. It may be a unix socket, which never will be, or one that is just connecting.
_MISSED_SECONDS, _MOST_MISSED_SECONDS = 0.5, 60.0
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
        self._served: dict[int, tuple[float, Served]] = {}  # until when it is told again

    def table(self, pid: int, *, again: bool = False) -> dict[int, TcpSocket]:
        """All TCP sockets of the network namespace of `pid`, by inode; empty where it cannot be read.

        again   read now, without the cache
        """
        key = self._table_of(pid)
        if again:
            self._shared = {name: entry for name, entry in self._shared.items() if name != key}
        return self._share(key, lambda: self._read_table(pid), _SHARED_SECONDS)

    def unsent(self, pid: int, descriptors: Iterable[int]) -> dict[int, int]:
        """Bytes in the kernel's send queue for each descriptor of `pid` that is an established TCP connection.

        The descriptors' links are read anew every time: a service reuses the number of a closed connection, and the bytes
        of one connection must not be reported for another. Where the cached table is older than a connection, it is read
        again.
        """
        inodes = self._inodes_now(pid, descriptors)
        sockets = set(inodes.values())
        table = self._rows(pid, sockets)
        if not table.keys() >= sockets:
            table = self.table(pid, again=True)
        rows = ((descriptor, table.get(inode)) for descriptor, inode in inodes.items())
        return {descriptor: row.unsent for descriptor, row in rows if row is not None and row.state == ESTABLISHED}

    def served(self, pid: int) -> Served:
        """The ports that `pid` listens on, and its connections; as they were up to `_SERVED_SECONDS` ago where it has many."""
        good_until, served = self._served.get(pid, (0.0, None))
        if served is not None and time.monotonic() < good_until:
            return served
        began = time.thread_time()
        inodes = self.inodes(pid)
        served = _served(inodes, self._rows(pid, inodes))
        if len(inodes) > _FEW:
            took, now = time.thread_time() - began, time.monotonic()
            others = {each: entry for each, entry in self._served.items() if now < entry[0]}
            self._served = {**others, pid: (now + min(_SERVED_SECONDS, _SERVED_COSTS * took), served)}
        return served

    def listeners(self, pid: int) -> set[int]:
        """Inodes of the listening TCP sockets of `pid`."""
        inodes = self.inodes(pid)
        table = self._rows(pid, inodes)
        return {inode for inode in inodes if inode in table and table[inode].state == LISTEN}

    def why_hidden(self, pid: int) -> str | None:
        """A sentence why the sockets of process `pid` cannot be read; None where they can."""
        try:
            with _folder(f"{self._proc}/{pid}/fd"):
                return None
        except PermissionError:
            return (
                f"the kernel does not let uid {os.geteuid()} see the descriptors of process {pid}: it is another user's, or "
                "has changed its user since its start; run the monitor as root, or with CAP_SYS_PTRACE"
            )
        except OSError:
            return f"process {pid} has ended"

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
        inodes: dict[int, int] = {}
        with suppress(OSError), _folder(f"{self._proc}/{pid}/fd") as folder:
            for descriptor in descriptors:
                inode = _inode_at(str(descriptor), folder)
                if inode:
                    inodes[descriptor] = inode
        return inodes

    def _share(self, key: str, read: Callable[[], dict[int, Any]], least: float) -> dict[int, Any]:
        """The cached result of `read`, valid for `least` seconds, or for `_SHARED_COSTS` times its CPU time if it is costly."""
        shared = self._shared.get(key)
        if shared is not None and time.monotonic() < shared.good_until:
            return shared.rows
        began = time.thread_time()  # CPU time: on a busy machine wall-clock time is not the cost
        rows = read()
        took, now = time.thread_time() - began, time.monotonic()
        good = max(least, _SHARED_COSTS * took if took > _DEAR_SECONDS else 0.0)
        kept = {name: entry for name, entry in self._shared.items() if now < entry.good_until}
        self._shared = {**kept, key: _Shared(now + good, rows)}
        return rows

    def _rows(self, pid: int, inodes: set[int]) -> dict[int, TcpSocket]:
        """inode -> row of those of these sockets of `pid` that are TCP connections or listen, and maybe of others."""
        known, key, now = self._known.get(pid), self._table_of(pid), time.monotonic()
        shared = self._shared.get(key)
        if shared is not None and now < shared.good_until:
            return shared.rows
        if known is None or len(inodes) > _FEW or not self._is_near(key):
            return self.table(pid)
        if now < known.rows_good_until and inodes <= known.asked:
            return known.rows
        if any(known.is_new(inode, now) for inode in inodes):
            ids: dict[int, SocketId] = {}
            table = self._share(key, lambda: self._read_table(pid, ids), _SHARED_SECONDS)
            known.met(inodes, ids, now)
            return table
        asked = {inode: each for inode, each in known.ids.items() if inode in inodes}
        try:
            rows = now_of(asked)
        except OSError:  # forbidden by a sandbox, or the kernel was busy: the table has the same rows
            return self.table(pid)
        if len(rows) < len(asked):
            known.met(asked, {inode: asked[inode] for inode in rows}, now)
        known.asked, known.rows, known.rows_good_until = inodes, rows, now + _SHARED_SECONDS
        return rows

    def _table_of(self, pid: int) -> str:
        """The name of the table in which the sockets of `pid` are: that of its network namespace."""
        return f"table {self._link(f'{pid}/ns/net')}"

    def _is_near(self, key: str) -> bool:
        """Whether a table is that of this process, too, so that the kernel tells it by netlink."""
        own = self._link("self/ns/net")
        return bool(own) and key == f"table {own}"

    def _read_table(self, pid: int, ids: dict[int, SocketId] | None = None) -> dict[int, TcpSocket]:
        if self._is_near(self._table_of(pid)):
            with suppress(
                OSError
            ):  # no such kernel module, or forbidden by a sandbox: the /proc tables have the same rows
                return dump(ids)
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
        known, now = self._known.get(pid), time.monotonic()
        if known is None or now > known.good_until:
            # Which socket a descriptor has is read again; what was found of a socket holds for as long as it is open.
            known = _Known(now + _KNOWN_SECONDS, ids=known.ids if known else {}, missed=known.missed if known else {})
            self._known = {**self._known, pid: known}
        table = self._rows(pid, set(known.inodes.values()))
        inodes: dict[int, int] = {}
        try:
            with _folder(f"{self._proc}/{pid}/fd") as folder:
                for name in os.listdir(folder):  # noqa: PTH208  # thousands of names, no Path for each
                    descriptor = int(name)
                    inode = known.inodes.get(descriptor, 0)
                    if inode not in table:
                        inode = _inode_at(name, folder)
                    if inode:
                        inodes[descriptor] = inode
        except OSError:  # it has ended, or is another user's
            return inodes
        known.keep(inodes)
        self._known = {each: entry for each, entry in self._known.items() if now <= entry.good_until} | {pid: known}
        return inodes

    def _link(self, path: str) -> str:
        try:
            return os.readlink(f"{self._proc}/{path}")  # noqa: PTH115  # as above
        except OSError:  # closed since, or not ours to read
            return ""


class _Shared(NamedTuple):
    good_until: float
    rows: dict[int, Any]


@dataclass(slots=True)
class _Known:
    """What is known of a process's sockets.

    inodes   of its descriptors, as they were last read
    ids      inode -> what the kernel finds it by
    missed   inode -> since when it was in no table, and when it is looked for again
    rows     the last rows that were looked up one by one, of the inodes `asked`
    """

    good_until: float
    inodes: dict[int, int] = field(default_factory=dict)
    ids: dict[int, SocketId] = field(default_factory=dict)
    missed: dict[int, tuple[float, float]] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)
    rows: dict[int, TcpSocket] = field(default_factory=dict)
    rows_good_until: float = 0.0

    def is_new(self, inode: int, now: float) -> bool:
        """Whether the whole table must be read for this socket."""
        return inode not in self.ids and now >= self.missed.get(inode, (now, now))[1]

    def met(self, asked: Iterable[int], ids: Mapping[int, SocketId], now: float) -> None:
        """Keep which of the sockets that were looked for there are. Others may read meanwhile, in threads of theirs."""
        found, missed = dict(self.ids), dict(self.missed)
        for inode in asked:
            if inode in ids:
                found[inode] = ids[inode]
                missed.pop(inode, None)
            else:
                found.pop(inode, None)
                since, _ = missed.get(inode, (now, now))
                missed[inode] = since, now + min(_MOST_MISSED_SECONDS, max(_MISSED_SECONDS, now - since))
        self.ids, self.missed = found, missed

    def keep(self, inodes: dict[int, int]) -> None:
        """These are the process's sockets now: nothing is kept of others."""
        self.inodes, there = inodes, set(inodes.values())
        ids, missed = self.ids, self.missed
        self.ids = {inode: each for inode, each in ids.items() if inode in there}
        self.missed = {inode: each for inode, each in missed.items() if inode in there}


def _served(inodes: Iterable[int], table: Mapping[int, TcpSocket]) -> Served:
    own = [row for row in map(table.get, inodes) if row is not None]
    ports = {row.local_port for row in own if row.state == LISTEN}
    clients = outgoing = kernel_bytes = 0
    for port, state, unsent, _ in own:
        if state == ESTABLISHED and port in ports:
            clients += 1
            kernel_bytes += unsent
        elif state == ESTABLISHED:
            outgoing += 1
    return Served(tuple(sorted(ports)), clients, kernel_bytes, outgoing)


@contextmanager
def _folder(path: str) -> Iterator[int]:
    """The descriptor of this folder. Raises OSError where it cannot be opened."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield folder
    finally:
        os.close(folder)


def _inode_at(name: str, folder: int) -> int:
    """12345 where the link `name` in this folder is `socket:[12345]`; 0 for any other link, and for one that is gone."""
    try:
        link = os.readlink(name, dir_fd=folder)  # thousands of links, no Path for each
    except OSError:
        return 0
    return int(link[8:-1]) if link.startswith("socket:[") else 0
