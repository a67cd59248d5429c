"""Shortens a unix socket's path: an address has 107 bytes at most (unix(7)), a path through /proc/PID/root may be longer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["short_path"]

_MOST_BYTES = 107


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """The path, or a short one to the same socket, valid within the context. Raises OSError where its folder is gone."""
    if len(os.fsencode(path)) <= _MOST_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
