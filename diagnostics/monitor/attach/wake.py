"""Wakes an idle event loop: opens and closes a connection to each port that its process listens on.

A container has a network namespace of its own, where its loopback is another one. The connection is then made in there,
which takes CAP_SYS_ADMIN, as root on the container's machine has it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from pathlib import Path

from ..kernel.sockets import Sockets

__all__ = ["nudge"]

_CLONE_NEWNET = 0x40000000
_CONNECT_SECONDS = 0.2


def nudge(pid: int) -> None:
    """Connect to the ports of process `pid`; where that is not possible, nothing happens.

    To be called in a thread that ends afterwards, since the thread stays in the process's network namespace (setns(2)).
    """
    try:
        if Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/thread-self/ns/net").readlink() and not _entered(pid):
            return
        ports = Sockets().served(pid).ports
    except OSError:  # it has ended, or is not to be seen
        return
    for port in ports:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=_CONNECT_SECONDS):
            pass


def _entered(pid: int) -> bool:
    """Move this thread into the network namespace of `pid`; False where the kernel refuses. Raises OSError."""
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return bool(ctypes.CDLL(None).setns(namespace, _CLONE_NEWNET) == 0)
    finally:
        os.close(namespace)
