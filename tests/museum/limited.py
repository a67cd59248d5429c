"""A service in a cgroup of its own with a limit, and a folder in a tmpfs: what is charged to the limit beside processes."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from diagnostics.monitor.kernel.hierarchy import find_cgroup

from ..services.running import Failed
from .table import Side

_LIMITS = ("memory.max", "memory.limit_in_bytes")
_USED = ("memory.current", "memory.usage_in_bytes")
_TMPFS = "/dev/shm"
_EMPTY_SECONDS = 20.0


@contextlib.contextmanager
def limited(side: Side) -> Iterator[tuple[Side, Callable[[], int] | None]]:
    """The side as it is to be started, and what tells the bytes that its cgroup is charged for; None of a side without a limit.

    Raises Failed where no such cgroup can be made here: that takes root, or a part of the hierarchy that one may write to.
    """
    if not side.limit_mib:
        yield side, None
        return
    cgroup = _made(side.limit_mib * 2**20)
    try:
        with tempfile.TemporaryDirectory(prefix="museum-", dir=_TMPFS) as folder:
            into = ("sh", "-c", f'echo $$ > {cgroup}/cgroup.procs && exec "$@"', "sh")
            environment = {name: value.replace("{tmpfs}", folder) for name, value in side.environment.items()}
            used = next(cgroup / name for name in _USED if (cgroup / name).exists())
            yield (
                replace(side, command=(*into, *side.command), environment=environment),
                lambda: int(used.read_text(encoding="utf-8")),
            )
    finally:
        deadline = time.monotonic() + _EMPTY_SECONDS
        while (cgroup / "cgroup.procs").read_text(encoding="utf-8") and time.monotonic() < deadline:
            time.sleep(0.1)
        cgroup.rmdir()


def _made(limit: int) -> Path:
    found = find_cgroup(os.getpid())
    if isinstance(found, str):
        raise Failed(f"no memory cgroup can be made here: {found}")
    folder = found.mount / f"museum-{os.getpid()}-{time.monotonic_ns()}"
    try:
        folder.mkdir()
        next(folder / name for name in _LIMITS if (folder / name).exists()).write_text(str(limit), encoding="utf-8")
    except (OSError, StopIteration) as error:
        if folder.is_dir():
            folder.rmdir()
        raise Failed(f"no memory cgroup with a limit can be made here: {error}") from error
    return folder
