"""Finds the process that listens on a unix socket whose queue is full, where SO_PEERCRED needs a connection.

That is a stopped process, or one whose GIL is held for long. The kernel's table of unix sockets (`/proc/PID/net/unix`) has the
inode of each listening one, and the links of a process's descriptors name their inodes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ...protocol import MAX_ADDRESS_BYTES
from ..kernel.process import proc_is_ours

__all__ = ["full_queue_holder"]

_PROC = Path("/proc")
_ACCEPTS_FLAG = 0x10000  # __SO_ACCEPTCON, include/linux/net.h


def full_queue_holder(path: Path) -> int:
    """The pid, in our PID namespace, of the process that holds the listening socket at `path`; 0 where none is found."""
    if not proc_is_ours():
        return 0
    tables: dict[str, set[str]] = {}
    for process in _PROC.iterdir():
        if not process.name.isdecimal():
            continue
        try:
            network = str((process / "ns" / "net").readlink())
            if network not in tables:
                tables[network] = _listening(process, path)
            if tables[network] and tables[network] & _sockets(process):
                return int(process.name)
        except OSError:  # ended, or another user's
            continue
    return 0


def _listening(process: Path, path: Path) -> set[str]:
    """Inodes of the listening unix sockets whose name, in the mount namespace of `process`, is this file."""
    wanted = path.lstat()
    # One whose path is longer than an address was bound through its folder's descriptor, by which the table names it.
    is_long = len(os.fsencode(path)) > MAX_ADDRESS_BYTES
    inodes: set[str] = set()
    # Num RefCount Protocol Flags Type St Inode Path
    for line in (process / "net" / "unix").read_text(errors="surrogateescape").splitlines()[1:]:
        fields = line.split(None, 7)
        if len(fields) < 8 or not int(fields[3], 16) & _ACCEPTS_FLAG or Path(fields[7]).name != path.name:
            continue
        if is_long and fields[7].startswith("/proc/self/fd/"):
            inodes.add(fields[6])
            continue
        for place in (Path(fields[7]), process / "root" / fields[7].lstrip("/")):
            try:
                facts = place.lstat()
            except OSError:
                continue
            if (facts.st_dev, facts.st_ino) == (wanted.st_dev, wanted.st_ino):
                inodes.add(fields[6])
    return inodes


def _sockets(process: Path) -> set[str]:
    inodes: set[str] = set()
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed since
            link = str(descriptor.readlink())
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    return inodes
