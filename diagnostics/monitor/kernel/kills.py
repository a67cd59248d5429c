"""Counts the OOM kills in a cgroup, also after the end of the process through which it was found.

A container's cgroup can often be reached through `/proc/PID/root` only, which is gone once that process was killed. So the
folder is kept open. Where the cgroup itself is removed with its last process, the count is unknown.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["KillCount"]

# Version 2, version 1 (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst).
_FILES = ("memory.events", "memory.oom_control")
_COUNT = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)


class KillCount:
    """The OOM kills of the cgroup at `folder` since construction. Needs `close`. Raises OSError where there is no folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._before = self._read()

    def since(self) -> int | None:
        """The number of kills since construction; None where the kernel does not count them, or the cgroup is gone."""
        now = self._read()
        return None if now is None or self._before is None else now - self._before

    def close(self) -> None:
        os.close(self._descriptor)

    def _read(self) -> int | None:
        for name in _FILES:
            try:
                descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._descriptor)
            except OSError:  # the other version's, or gone
                continue
            try:
                match = _COUNT.search(os.read(descriptor, 4096))
            except OSError:  # gone since
                continue
            finally:
                os.close(descriptor)
            if match:
                return int(match[1])
        return None
