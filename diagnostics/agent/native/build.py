"""Builds the extensions while the package is built, for CPython 3.11 and later: the sampled live heap, allocators' figures,
and the steps of a walk over all objects.

They are optional. Without a C compiler or Python's headers the package is built without them and is then a wheel for every
machine: the agent says what is missing of the heap, reads the figures by ctypes and walks in Python. HIGHWATER_EXTENSION=off
builds it without in any case, =require fails instead.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Folders of sources, and what is made of each.
_LIBRARIES = {
    "diagnostics/agent/native/live": "diagnostics/agent/heap/_live.abi3.so",
    "diagnostics/agent/native/figures": "diagnostics/agent/readings/allocation/_figures.abi3.so",
    "diagnostics/agent/native/walk": "diagnostics/agent/readings/walk/_walk.abi3.so",
}
# The limited API of the oldest Python that is served.
_ABI, _TAG = "0x030B0000", "cp311-abi3"
_FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden", "-shared")


class Extension(BuildHookInterface):  # type: ignore[misc]  # hatchling is in the build's environment, not in ours
    """Hatchling's hook: compiles, and names the wheel after what it then holds."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """`version`: "editable" for a checkout that is used as it lies, where the library lies among the sources."""
        choice = os.environ.get("HIGHWATER_EXTENSION", "")
        self._made = Path(tempfile.mkdtemp(prefix="highwater-"))
        built = {library: self._made / Path(library).name for library in _LIBRARIES.values()}
        why = "HIGHWATER_EXTENSION=off" if choice == "off" else _why_not()
        for sources, library in _LIBRARIES.items():
            why = why or _compile(Path(self.root, sources), built[library])
        if version == "editable":
            for library, made in built.items():
                _put(made if why is None else None, Path(self.root, library))
        if why is None:
            build_data["pure_python"] = False
            build_data["tag"] = f"{_TAG}-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
            if version != "editable":
                build_data["force_include"].update({str(made): library for library, made in built.items()})
        elif choice == "require":
            raise RuntimeError(f"the extensions were not built: {why}")
        else:
            self.app.display_warning(f"built without the extensions: {why}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(self._made, ignore_errors=True)


def _put(built: Path | None, place: Path) -> None:
    """What was built, or nothing, instead of what an earlier build has left."""
    if built is not None:
        beside = place.with_suffix(f".{os.getpid()}")
        shutil.copy(built, beside)
        beside.replace(place)  # in one step: a service that has the old one mapped keeps it
    else:
        place.unlink(missing_ok=True)


def _why_not() -> str | None:
    if sys.platform != "linux":
        return f"it is for Linux, this is {sys.platform}"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's headers are missing (Debian: apt install python3-dev)"
    return None


def _compile(sources: Path, library: Path) -> str | None:
    """None, or why it failed."""
    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or shutil.which("gcc") or ""]
    if not compiler[0]:
        return "there is no C compiler (Debian: apt install gcc libc6-dev)"
    command = [
        *compiler, *_FLAGS, *shlex.split(os.environ.get("CFLAGS", "")), f"-DPy_LIMITED_API={_ABI}",
        f"-I{sysconfig.get_path('include')}", "-o", str(library),
        *map(str, sorted(sources.glob("*.c"))), "-lm", "-ldl", "-pthread",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        return f"{compiler[0]} does not run: {error.strerror}"
    if done.returncode:
        library.unlink(missing_ok=True)
        return f"{compiler[0]} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
    return None
