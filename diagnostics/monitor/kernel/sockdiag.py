"""The kernel's TCP sockets by netlink: only those that are connected or listen, where /proc/net/tcp prints every one.

A service behind a proxy leaves thousands of connections in TIME_WAIT, which belong to no process. Printing ten thousand of
them takes the kernel 20 ms, skipping them 2 ms.

The messages: sock_diag(7), include/uapi/linux/inet_diag.h and sock_diag.h of the Linux kernel.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["ESTABLISHED", "LISTEN", "TcpSocket", "dump", "owner_of"]

ESTABLISHED, LISTEN = 1, 10

_FAMILY = 4  # NETLINK_SOCK_DIAG
_SOCK_DIAG_BY_FAMILY, _ERROR, _DONE = 20, 2, 3
_REQUEST, _REQUEST_AND_DUMP = 0x1, 0x301
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence number, port
_QUESTION = struct.Struct("=BBBxI48x")  # inet_diag_req_v2: family, protocol, extensions, states, and no address
# The same for one socket: ports and addresses of its two ends, any interface, no cookie (INET_DIAG_NOCOOKIE).
_ONE = struct.Struct("=BBBxI2s2s16s16sIQ")
# inet_diag_msg: state; after the source port the rest of the address; queues, uid and inode
_ANSWER = struct.Struct("=xBxx2s46x4xIIII")
_ERRNO = struct.Struct("=i")
_READ_BYTES = 65536


class TcpSocket(NamedTuple):
    """One socket.

    state    the kernel's number: 1 established, 10 listening
    unsent   bytes written and not yet acknowledged by the peer (tx_queue); of a listening socket always 0
    unread   bytes received and not yet read (rx_queue); of a listening socket, connections not yet accepted
    """

    local_port: int
    state: int
    unsent: int
    unread: int


def dump() -> dict[int, TcpSocket]:
    """Connected and listening TCP sockets of this process's network namespace, by inode. Raises OSError if refused."""
    sockets: dict[int, TcpSocket] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _FAMILY) as kernel:
        for family in (socket.AF_INET, socket.AF_INET6):
            question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 1 << ESTABLISHED | 1 << LISTEN)
            head = _HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP, family, 0)
            kernel.send(head + question)
            for state, port, unread, unsent, _uid, inode in _answers(kernel):
                if not inode:  # not yet accepted, or closed by its process
                    continue
                # Of a listening socket this field is the backlog's limit.
                queued = 0 if state == LISTEN else unsent
                sockets[inode] = TcpSocket(int.from_bytes(port, "big"), state, queued, unread)
    return sockets


def owner_of(end: tuple[str, int], other: tuple[str, int]) -> int | None:
    """The uid that owns the TCP socket from `end` to `other`, (address, port) each; None where it is not on this machine."""
    family = socket.AF_INET6 if ":" in end[0] else socket.AF_INET
    try:
        ports = [port.to_bytes(2, "big") for _, port in (end, other)]
        addresses = [socket.inet_pton(family, address).ljust(16, b"\0") for address, _ in (end, other)]
        states = 1 << ESTABLISHED
        question = _ONE.pack(family, socket.IPPROTO_TCP, 0, states, *ports, *addresses, 0, 2**64 - 1)
        head = _HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _REQUEST, family, 0)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _FAMILY) as kernel:
            kernel.settimeout(1.0)
            kernel.send(head + question)
            *_, uid, _inode = next(_answers(kernel))
            return uid
    except (OSError, ValueError):  # no such socket on this machine, or the kernel refuses
        return None


def _answers(kernel: socket.socket) -> Iterator[tuple[int, bytes, int, int, int, int]]:
    while True:
        data = kernel.recv(_READ_BYTES)
        start = 0
        while start < len(data):
            length, kind, *_ = _HEADER.unpack_from(data, start)
            if kind == _DONE:
                return
            if kind == _ERROR:
                (code,) = _ERRNO.unpack_from(data, start + _HEADER.size)
                raise OSError(-code, "the kernel does not tell its sockets")
            yield _ANSWER.unpack_from(data, start + _HEADER.size)
            start += length + 3 & ~3
