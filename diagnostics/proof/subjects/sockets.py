"""The connections of a port and what the kernel keeps for their peers, from /proc/net/tcp: nothing is asked of the service.

Its columns are in proc(5), the numbers of the states in include/net/tcp_states.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["connections", "send_queues"]

_TIME_WAIT = "06"
_LISTEN = "0A"


def connections(port: int, table: Path = Path("/proc/net/tcp")) -> int:
    """How many IPv4 connections have `port` as their local port and are not yet over.

    TIME_WAIT holds no memory of the service and does not count; nor does a socket without an inode, which no process owns
    any more. The kernel prints the table piece by piece while it changes, and may print a socket twice.
    """
    return len({inode for _, inode in _owned(port, table)})


def send_queues(port: int, table: Path = Path("/proc/net/tcp")) -> int:
    """Bytes that the kernel has taken from the processes that own `port` and that their peers have not acknowledged."""
    return sum({inode: size for size, inode in _owned(port, table)}.values())


def _owned(port: int, table: Path) -> Iterator[tuple[int, str]]:
    """The send queue in bytes and the inode of each IPv4 connection of the port."""
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        local, state, queues, inode = fields[1], fields[3], fields[4], fields[9]
        if int(local.rpartition(":")[2], 16) == port and state not in (_TIME_WAIT, _LISTEN) and inode != "0":
            yield int(queues.partition(":")[0], 16), inode
