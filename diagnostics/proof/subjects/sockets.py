"""Open connections of a port, from /proc/net/tcp: one file read, nothing asked of the service.

Its columns are in proc(5), the numbers of the states in include/net/tcp_states.h.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["connections"]

_TIME_WAIT = "06"
_LISTEN = "0A"


def connections(port: int, table: Path = Path("/proc/net/tcp")) -> int:
    """How many IPv4 connections have `port` as their local port and are not yet over.

    TIME_WAIT holds no memory of the service and does not count; nor does a socket without an inode, which no process owns
    any more. The kernel prints the table piece by piece while it changes, and may print a socket twice.
    """
    inodes = set()
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        local, state, inode = fields[1], fields[3], fields[9]
        if int(local.rpartition(":")[2], 16) == port and state not in (_TIME_WAIT, _LISTEN) and inode != "0":
            inodes.add(inode)
    return len(inodes)
