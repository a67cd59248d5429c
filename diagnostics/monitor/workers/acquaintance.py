"""Whether the agent that answers on a socket is that of the process which the kernel names as its listener."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..kernel.process import identity, namespaced_pid

__all__ = ["not_the_one"]

_PROC = Path("/proc")


def not_the_one(hello: Mapping[str, Any], pid: int, proc: Path = _PROC) -> str | None:
    """Why an agent's answer to "hello" is not of process `pid`, a sentence; None where nothing contradicts it.

    The answer has the pid in the agent's own PID namespace, and its process's start. A forwarder of the socket (socat, a
    service mesh) is the listener for the kernel, and another process than the one that answers.
    """
    known_as = namespaced_pid(pid, proc)
    if known_as is not None and hello.get("pid") not in (None, known_as):
        return f"it calls itself process {hello['pid']}, and process {pid} calls itself {known_as}"
    identified = identity(pid, proc)
    started = hello.get("start_ticks")
    if identified is not None and started not in (None, identified[0].start_ticks) and _same_clock(pid, proc):
        return f"its process started at tick {started} of this boot, process {pid} at tick {identified[0].start_ticks}"
    return None


def _same_clock(pid: int, proc: Path) -> bool:
    """Whether the process is in the same time namespace as this one (time_namespaces(7))."""
    try:
        return (proc / str(pid) / "ns" / "time").readlink() == (proc / "self" / "ns" / "time").readlink()
    except OSError:
        return False
