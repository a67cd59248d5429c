"""A Redis without its data on disk, on the core of the traffic: the relays are measured, it is not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .processes import TRAFFIC_CORE, free_port, started, wait_for_port

__all__ = ["redis_server"]


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """Its port, for as long as the `with` block runs. Needs redis-server (Debian: redis-server)."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with started(command, TRAFFIC_CORE) as process:
        wait_for_port(port, process)
        yield port
