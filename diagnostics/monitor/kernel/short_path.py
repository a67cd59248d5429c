"""The address of a unix socket: a path in a long folder, or through /proc/PID/root, is longer than an address may be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...protocol import socket_address

__all__ = ["short_path"]


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """`protocol.socket_address`, valid within the context. Raises as it does."""
    address, folder = socket_address(path)
    try:
        yield address
    finally:
        if folder is not None:
            os.close(folder)
