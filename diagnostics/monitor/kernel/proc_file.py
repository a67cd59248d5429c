"""Reads a small file of /proc or of a cgroup whole, in as few steps as there are.

The recorder reads dozens of them each second, for as long as the service runs. A `Path` and a text file around such a read take
ten times as long as its three system calls.
"""

from __future__ import annotations

import os

__all__ = ["read_whole"]

# More than nearly all of these files have: a second read then says that there is no more.
_READ_BYTES = 16384


def read_whole(path: str) -> bytes:
    """All bytes of the file. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        first = os.read(descriptor, _READ_BYTES)
        parts = [first]
        # /proc gives a long file by the page, so that a read which is not full is no sign of the end.
        while parts[-1]:
            parts.append(os.read(descriptor, _READ_BYTES))
        return first if len(parts) < 3 else b"".join(parts)
    finally:
        os.close(descriptor)
