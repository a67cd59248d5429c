"""The kernel's TCP sockets by netlink: only those that are connected or listen, where /proc/net/tcp prints every one.

A service behind a proxy leaves thousands of connections in TIME_WAIT, which belong to no process. Printing ten thousand of
them takes the kernel 20 ms, skipping them 2 ms.

The messages: sock_diag(7), include/uapi/linux/inet_diag.h and sock_diag.h of the Linux kernel.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

__all__ = ["ESTABLISHED", "LISTEN", "SocketId", "TcpSocket", "dump", "now_of", "owner_of"]

ESTABLISHED, LISTEN = 1, 10

_FAMILY = 4  # NETLINK_SOCK_DIAG
_TCPDIAG_GETSOCK, _SOCK_DIAG_BY_FAMILY, _ERROR, _DONE = 18, 20, 2, 3
_REQUEST, _REQUEST_AND_DUMP = 0x1, 0x301
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence number, port
# inet_diag_req: family, no addresses, states. The kernel answers this older question for IPv4 and IPv6 together, and so goes
# through its table of connections once; an empty one of 262,144 places takes it 1.5 milliseconds.
_OLD_QUESTION = struct.Struct("=Bxxx48xI4x")
# The same for one socket: ports and addresses of its two ends, any interface, no cookie (INET_DIAG_NOCOOKIE).
_ONE = struct.Struct("=BBBxI2s2s16s16sIQ")
# The same by an identifier that the kernel gave.
_KNOWN = struct.Struct("=BBBxI48s")
# inet_diag_msg: family, state; inet_diag_sockid, which begins with the own port and ends with a number that no other socket
# gets, the cookie; queues, uid and inode
_ANSWER = struct.Struct("=BBxx48s4xIIII")
_ERRNO = struct.Struct("=i")
_ALL_STATES = 0xFFFFFFFF
_READ_BYTES = 65536
# One answer takes some 150.
_ANSWER_BYTES = 4096
# Sockets asked for at once: their answers fit into the receive buffer that a socket has by default.
_AT_ONCE = 32

# Length and type of the message, then the fields of _ANSWER.
_Answer = tuple[int, int, int, int, bytes, int, int, int, int]
# By which the kernel finds one socket again: its family and its inet_diag_sockid.
SocketId = tuple[int, bytes]


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


def dump(ids: dict[int, SocketId] | None = None) -> dict[int, TcpSocket]:
    """Connected and listening TCP sockets of this process's network namespace, by inode. Raises OSError if refused.

    ids   gets what `now_of` finds each of them by
    """
    sockets: dict[int, TcpSocket] = {}
    made = TcpSocket._make
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _FAMILY) as kernel:
        question = _OLD_QUESTION.pack(socket.AF_INET, 1 << ESTABLISHED | 1 << LISTEN)
        kernel.send(_HEADER.pack(_HEADER.size + len(question), _TCPDIAG_GETSOCK, _REQUEST_AND_DUMP, 1, 0) + question)
        for answers in _answers(kernel):
            for _, _, family, state, name, unread, unsent, _, inode in answers:
                if inode:  # else it is not yet accepted, or closed by its process
                    # Of a listening socket this field is the backlog's limit.
                    queued = 0 if state == LISTEN else unsent
                    sockets[inode] = made((name[0] << 8 | name[1], state, queued, unread))
                    if ids is not None:
                        ids[inode] = family, name
    return sockets


def now_of(ids: Mapping[int, SocketId]) -> dict[int, TcpSocket]:
    """Those of these sockets that are still connected or listen, by inode; each is looked up by itself, in two microseconds of
    the kernel's, whatever else its table has. Raises OSError if refused."""
    sockets: dict[int, TcpSocket] = {}
    left, data = list(ids.items()), bytearray(_ANSWER_BYTES)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _FAMILY) as kernel:
        kernel.settimeout(1.0)
        for start in range(0, len(left), _AT_ONCE):
            asked = left[start : start + _AT_ONCE]
            kernel.send(b"".join(_question(family, name) for _, (family, name) in asked))
            for wanted, _ in asked:  # one message each, in the order of the questions
                kernel.recv_into(data)
                _, kind, *_ = _HEADER.unpack_from(data)
                if kind == _ERROR:
                    (code,) = _ERRNO.unpack_from(data, _HEADER.size)
                    if -code not in (
                        errno.ENOENT,
                        errno.ESTALE,
                    ):  # else it is closed, and maybe another has its addresses
                        raise OSError(-code, "the kernel does not tell its sockets")
                    continue
                _, state, name, unread, unsent, _, inode = _ANSWER.unpack_from(data, _HEADER.size)
                if inode == wanted and state in (ESTABLISHED, LISTEN):
                    queued = 0 if state == LISTEN else unsent
                    sockets[inode] = TcpSocket(name[0] << 8 | name[1], state, queued, unread)
    return sockets


def _question(family: int, name: bytes) -> bytes:
    question = _KNOWN.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES, name)
    return _HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _REQUEST, 1, 0) + question


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
            *_, uid, _inode = next(_answers(kernel))[0]
            return uid
    except (OSError, ValueError):  # no such socket on this machine, or the kernel refuses
        return None


def _answers(kernel: socket.socket) -> Iterator[list[_Answer]]:
    """All answers, in runs of those that have one length and are unpacked together. Raises OSError."""
    while True:
        data = memoryview(kernel.recv(_READ_BYTES))
        start = 0
        while start < len(data):
            length, kind, *_ = _HEADER.unpack_from(data, start)
            if kind == _DONE:
                return
            if kind == _ERROR:
                (code,) = _ERRNO.unpack_from(data, start + _HEADER.size)
                raise OSError(-code, "the kernel does not tell its sockets")
            size = length + 3 & ~3
            most = max(1, (len(data) - start) // size)  # the last one may come without its padding
            layout = _layout(size if most > 1 else len(data) - start)
            answers = list(
                takewhile(
                    lambda each: each[0] == length and each[1] == kind,  # noqa: B023  # used up before they change
                    layout.iter_unpack(data[start : start + most * layout.size]),
                )
            )
            yield answers
            start += len(answers) * size


@lru_cache(maxsize=16)
def _layout(size: int) -> struct.Struct:
    """One message of so many bytes with its header, as an `_Answer`."""
    answer = _ANSWER.format.removeprefix("=")
    return struct.Struct(f"=IH10x{answer}{size - _HEADER.size - _ANSWER.size}x")
