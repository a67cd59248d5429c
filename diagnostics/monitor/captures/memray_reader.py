"""Who reads a service's memray capture: this monitor's memray where it is of the same version, else the service's own.

memray writes another file format with nearly every release and reads no other one. So the versions are compared before a window
is opened. Where they differ, `memray_file` runs in the service's own interpreter, a process of its own with the service's
memray: the module needs nothing else but the standard library. Where that cannot be (the service runs in another container,
or as another user, or its interpreter does not start), the capture is refused, and the service has not paid for a window.
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
# Runs `memray_file` with our package visible for its own import alone: the service's memray, and what it needs, come from
# where the service has them. Arguments: our package's folder, memray's folder, then the module's.
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
# Where memray does not tell its version in the file that it is in since 1.0.
_UNKNOWN = "of an unknown version"


@dataclass(frozen=True)
class Reader:
    """`python` is the service's interpreter and `folder` where its memray is; both None where this monitor's memray reads."""

    version: str
    python: str | None = None
    folder: str | None = None

    @property
    def note(self) -> str | None:
        """What is missing from a capture that the service's own memray has read; None where nothing is."""
        if self.python is None:
            return None
        return (
            f"memray's own pages: the service has memray {self.version} and this monitor {_our_version() or 'none'}, so the "
            "service's own interpreter has read the capture (flame.html is made of it)"
        )

    async def profile(self, capture: Path, view: str, output: Path) -> None:
        """Write the Profile JSON of a capture file. Raises what `run_reader` raises."""
        await self._run(str(capture), "--of", view, output=output)

    async def _run(self, *arguments: str, output: Path | None = None, patience: float = 120.0) -> None:
        if self.python is None or self.folder is None:
            await run_reader("-m", _MODULE, *arguments, output=output, patience=patience)
        else:
            await run_reader(
                "-c", _BOOT, _OURS, self.folder, *arguments, output=output, patience=patience, python=self.python
            )

    async def check(self) -> None:
        """Raises TargetError unless the service's interpreter starts and has the memray that it should have."""
        with tempfile.TemporaryDirectory(prefix="highwater-memray-") as folder:
            output = Path(folder) / "version"
            await self._run("--version", output=output, patience=_CHECK_SECONDS)
            told = output.read_text().strip()
        if self.version not in (told, _UNKNOWN):
            raise TargetError(f"the service has memray {self.version}, its interpreter {self.python} has {told!r}")


async def reader_for(worker: Worker, *, check: bool) -> Reader:
    """Who can read a capture of this worker.

    check   whether to start the service's interpreter to see, where it is the one that would
    Raises UsageError: the service has no memray ("memray_missing"), or nobody here can read what it writes
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
    """Why the service's interpreter is not to be started from here; None where it may be.

    What the agent says is its interpreter must be what its process runs, under the same user and in the same file system.
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
