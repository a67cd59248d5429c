"""Work at a fixed pace: what a service is asked per second does not depend on how fast it, or the machine, is."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ..services.exchange import ask
from ..services.running import Failed, Running
from ..services.service import Request

_CLIENTS = 4


@dataclass
class Paced:
    """What came of it so far; `error` is the first that there was."""

    done: int = 0
    failed: int = 0
    error: str = ""


@contextlib.contextmanager
def paced(running: Running, request: Request, a_second: float) -> Iterator[Paced]:
    """`a_second` requests a second beside the block. What cannot be kept up with is left out, not made up for."""
    came_to, stopping, lock = Paced(), threading.Event(), threading.Lock()
    interval = _CLIENTS / a_second

    def client(first: float) -> None:
        due = first
        while not stopping.wait(max(0.0, due - time.monotonic())):
            try:
                ask(running, request)
                with lock:
                    came_to.done += 1
            except (OSError, Failed, http.client.HTTPException) as error:
                with lock:
                    came_to.failed += 1
                    came_to.error = came_to.error or f"{type(error).__name__}: {error}"
            due = max(due + interval, time.monotonic())

    began = time.monotonic()
    threads = [
        threading.Thread(target=client, args=(began + number / a_second,), daemon=True) for number in range(_CLIENTS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield came_to
    finally:
        stopping.set()
        for thread in threads:
            thread.join(60)
