"""What a machine may have no more of, for one relay: room on its disk, new processes and threads, descriptors.

Each is the kernel's own refusal. What this user or machine cannot do is None, and the seed says that it was left out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

__all__ = ["Disk", "Processes", "descriptors_at_most"]

DISK_BYTES = 384 * 1024 * 1024


class Disk:
    """A file system of DISK_BYTES at a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filler = folder / "filler"

    @classmethod
    def at(cls, folder: Path) -> Disk | None:
        """None for who may mount nothing."""
        if os.getuid() or not shutil.which("mount"):
            return None
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "none", str(folder)], capture_output=True
        )
        return None if mounted.returncode else cls(folder)

    def fill(self) -> None:
        """Leave no room at all."""
        with self._filler.open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(1 << 20))
        with self._filler.open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self._folder)], check=True, capture_output=True)


class Processes:
    """A cgroup that counts processes and threads; a fork and a new thread fail alike where it has as many as it may."""

    def __init__(self, folder: Path, before: list[str]) -> None:
        self._folder = folder
        self.before = before

    @classmethod
    def counted(cls, name: str) -> Processes | None:
        """None where no such cgroup can be made. `before` are words in front of a command that is to be in it."""
        for mount in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")):
            folder = mount / name
            try:
                folder.mkdir()
            except OSError:
                continue
            if (folder / "pids.max").exists():
                return cls(folder, ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"])
            folder.rmdir()
        return None

    def no_more(self) -> None:
        (self._folder / "pids.max").write_text(
            (self._folder / "pids.current").read_text(encoding="utf-8"), encoding="utf-8"
        )

    def as_many_as_wanted(self) -> None:
        (self._folder / "pids.max").write_text("max", encoding="utf-8")

    def remove(self) -> None:
        """Once all that was in it has ended; raises OSError where something does not within ten seconds."""
        until = time.monotonic() + 10
        while True:
            try:
                self._folder.rmdir()
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                return


@contextlib.contextmanager
def descriptors_at_most(pid: int, more: int):  # type: ignore[no-untyped-def]  # a context manager of nothing
    """Let a process have no more than `more` descriptors beside those that it has."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")) + more, hard))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
