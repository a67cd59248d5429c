"""Waits until this process serves, then starts its agent; a process that never listens keeps one sleeping thread.

Kept free of sockets and /proc parsing that costs: a look is one read of /proc/net/tcp and a listing of /proc/self/fd.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

from ...errors import DiagnosticsError
from .. import lifecycle
from ..forked import in_reading_fork

__all__ = ["start"]

log = logging.getLogger("diagnostics.agent")

# A server listens within seconds of its start, or is a slow one: look often first, seldom later.
_FAST_LOOKS, _FAST_SECONDS, _SLOW_SECONDS = 100, 0.1, 2.0
_LISTEN = "0A"


def start(always: bool) -> None:
    """Begin to look; with `always`, start the agent without looking (a script that never listens)."""
    if always:
        _start_agent()
        return
    threading.Thread(target=_look, name="diagnostics-lookout", daemon=True).start()


def _look() -> None:
    looks = 0
    while not is_listening():
        looks += 1
        time.sleep(_FAST_SECONDS if looks < _FAST_LOOKS else _SLOW_SECONDS)
        if lifecycle.is_running():
            return
    _start_agent()


def _start_agent() -> None:
    try:
        lifecycle.start()
    except (DiagnosticsError, OSError) as error:
        log.error("this process runs without diagnostics: %s", error)


def is_listening() -> bool:
    """Whether this process holds a listening TCP socket."""
    own = set()
    for entry in os.scandir("/proc/self/fd"):
        try:
            link = os.readlink(entry.path)  # noqa: PTH115  # a Path for every fd would cost more than the look
        except OSError:  # closed since
            continue
        if link.startswith("socket:["):
            own.add(link[8:-1])
    if not own:
        return False
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:  # no IPv6
            continue
        for line in lines:
            columns = line.split()
            if columns[3] == _LISTEN and columns[9] in own:
                return True
    return False


def _after_fork_in_child() -> None:
    # Threads do not survive a fork; a worker forked before the parent listened looks out for itself.
    if not in_reading_fork() and not lifecycle.is_running():
        threading.Thread(target=_look, name="diagnostics-lookout", daemon=True).start()


os.register_at_fork(after_in_child=_after_fork_in_child)
