"""Chooses the memray that reads a service's capture: this monitor's where it has the same version, else the service's own.

memray's file format changes with nearly every release, and a release reads its own only. So the versions are compared before
a window is opened. Where they differ, `memray_file` runs in a new process of the service's interpreter, with the service's
memray: the module needs nothing else but the standard library. Where that is not possible (the service runs in another
container, or as another user, or its interpreter does not start), the capture is refused before any window is opened.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ...errors import TargetError, UsageError
from ..workers.targets import Worker
from .reader import run_reader

__all__ = ["Reader", "reader_for"]

_MODULE = "diagnostics.monitor.captures.memray_file"
# Runs `memray_file` with our package's folder on sys.path for that import only: memray and its dependencies are the
# service's. Arguments: our package's folder, memray's folder, then the module's.
_BOOT = f"""
import sys
ours, theirs = sys.argv[1:3]
sys.path.insert(0, ours)
from {_MODULE} import main
sys.path.remove(ours)
if theirs not in sys.path:
    sys.path.append(theirs)
sys.exit(main(sys.argv[3:]))
"""
_OURS = str(Path(__file__).parents[3])
_CHECK_SECONDS = 30.0
# In messages, where memray's version file cannot be read.
_UNKNOWN = "of an unknown version"


@dataclass(frozen=True)
class Reader:
    """`python`: the service's interpreter, `folder`: that of its memray; both None where this monitor's memray reads."""

    version: str
    python: str | None = None
    folder: str | None = None

    @property
    def note(self) -> str | None:
        """A sentence on what a capture lacks that the service's memray has read; None where it lacks nothing."""
        if self.python is None:
            return None
        return (
            f"memray's own pages: the service has memray {self.version} and this monitor {_our_version() or 'none'}, so the "
            "service's own interpreter has read the capture (flame.html is made of it)"
        )

    async def profile(self, capture: Path, view: str, output: Path) -> None:
        """Write the Profile JSON of the file `capture` to `output`. Raises as `run_reader` does."""
        await self._run(str(capture), "--of", view, output=output)

    async def _run(self, *arguments: str, output: Path | None = None, patience: float = 120.0) -> None:
        if self.python is None or self.folder is None:
            await run_reader("-m", _MODULE, *arguments, output=output, patience=patience)
        else:
            await run_reader(
                "-c", _BOOT, _OURS, self.folder, *arguments, output=output, patience=patience, python=self.python
            )

    async def check(self) -> None:
        """Raises TargetError unless the service's interpreter starts and imports the memray version that the agent reported."""
        with tempfile.TemporaryDirectory(prefix="highwater-memray-") as folder:
            output = Path(folder) / "version"
            await self._run("--version", output=output, patience=_CHECK_SECONDS)
            version = output.read_text(encoding="utf-8").strip()
        if self.version not in (version, _UNKNOWN):
            raise TargetError(f"the service has memray {self.version}, its interpreter {self.python} has {version!r}")


async def reader_for(worker: Worker, *, check: bool) -> Reader:
    """The reader for captures of this worker.

    check   whether to try the service's interpreter, where that one would read
    Raises UsageError where the service has no memray (code "memray_missing"), or no memray here can read its files
    ("memray_unreadable").
    """
    about = await worker.ask("hello")
    if not about["memray"]:
        raise UsageError(
            "the service's environment has no memray",
            remedy="pip install memray in the service's environment, or take kind tracemalloc",
            code="memray_missing",
        )
    version = about.get("memray_version") or _UNKNOWN
    if version == _our_version():
        return Reader(version)
    python, folder = str(about.get("executable") or ""), str(about.get("memray_folder") or "")
    reason = _why_not(worker.pid, python)
    reader = Reader(version, python, folder)
    if reason is None and check:
        try:
            await reader.check()
        except (TargetError, OSError) as error:
            reason = f"the service's interpreter {python} cannot read it either: {error}"
    if reason is not None:
        raise UsageError(
            f"the service has memray {version}, this monitor {_our_version() or 'none'}, and {reason}",
            remedy="install the service's version of memray where this monitor runs, or take kind tracemalloc "
            "(diagnostics capture URL --kind tracemalloc)",
            code="memray_unreadable",
            service_memray=version,
            monitor_memray=_our_version(),
        )
    return reader


def _our_version() -> str | None:
    try:
        return metadata.version("memray")
    except metadata.PackageNotFoundError:
        return None


def _why_not(pid: int, python: str) -> str | None:
    """Why the service's interpreter must not be started from here, a sentence; None where it may be.

    The interpreter that the agent reports must be the one that the process runs, as the same user and in the same file
    system.
    """
    process = Path("/proc") / str(pid)
    try:
        owner = process.stat().st_uid
        if owner != os.geteuid():
            return f"its process belongs to uid {owner}, whose interpreter is not run here"
        if not (process / "root").samefile("/"):
            return "it runs in another file system, so its interpreter cannot be run here"
        if not python or not (process / "exe").samefile(python):
            return f"it is not run by the interpreter that it names, {python!r}"
    except OSError as error:
        return f"its interpreter {python!r} is not to be found: {error.strerror}"
    return None
