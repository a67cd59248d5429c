"""The connections of a port and their send queues, from /proc/net/tcp, without a request to the service.

Its columns are in proc(5), the numbers of the states in include/net/tcp_states.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["connections", "send_queues"]

_TIME_WAIT = "06"
_LISTEN = "0A"


def connections(port: int, table: Path = Path("/proc/net/tcp")) -> int:
    """The number of open IPv4 connections with the local port `port`.

    Not counted: TIME_WAIT, which has no memory of the service, and sockets without an inode, which no process owns any more.
    The kernel prints the table piece by piece while it changes, and may print a socket twice.
    """
    return len({inode for _, inode in _owned(port, table)})


def send_queues(port: int, table: Path = Path("/proc/net/tcp")) -> int:
    """Bytes in the send queues of all connections of `port`: written, and not acknowledged by the peers."""
    return sum({inode: size for size, inode in _owned(port, table)}.values())


def _owned(port: int, table: Path) -> Iterator[tuple[int, str]]:
    """The send queue in bytes and the inode of each IPv4 connection of the port."""
    for line in table.read_text(encoding="utf-8").splitlines()[1:]:
        fields = line.split()
        local, state, queues, inode = fields[1], fields[3], fields[4], fields[9]
        if int(local.rpartition(":")[2], 16) == port and state not in (_TIME_WAIT, _LISTEN) and inode != "0":
            yield int(queues.partition(":")[0], 16), inode
