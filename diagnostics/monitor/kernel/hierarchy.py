"""Finds the folder of a process's cgroup, or says why it cannot be read.

The kernel writes a cgroup's path (`/proc/PID/cgroup`) and the root of each mount of the hierarchy (the fourth field of
`/proc/PID/mountinfo`) relative to the reader's cgroup namespace, cgroup_namespaces(7). So both are comparable, whatever
namespace the process itself is in, and a cgroup lies in a mount if its path begins with the mount's root. A container that
sees the host's paths, but mounts only its own part, needs no special case.

Two mounts may have it: our own, which has the levels above as well, and the process's, through `/proc/PID/root`. In
Kubernetes a sidecar sees the service's cgroup as `/../<container>`, which only the second one has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .proc_file import read_whole

__all__ = ["USAGE_FILE", "Place", "find_cgroup", "membership", "upwards"]

USAGE_FILE = {1: "memory.usage_in_bytes", 2: "memory.current"}
# A file that exists in every folder of the hierarchy where the controller is enabled, by controller and version.
_MARKS = {"memory": USAGE_FILE, "cpu": {1: "cgroup.procs", 2: "cgroup.procs"}}
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Place:
    """A cgroup: `folder`, the process's own level; `mount`, the highest readable level; `version`, 1 or 2."""

    folder: Path
    mount: Path
    version: int


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mount of a hierarchy that may have the controller: mount point, the cgroup at its root, version."""

    point: Path
    root: PurePosixPath
    version: int


def find_cgroup(pid: int, root: Path = Path("/"), controller: str = "memory") -> Place | str:
    """The cgroup of process `pid` for a controller, "memory" or "cpu"; else a sentence why it cannot be read.

    root   the folder that has `proc`
    """
    process = root / "proc" / str(pid)
    paths = _paths(process, controller)
    if paths is None:
        return "the process has ended, or /proc does not show it"
    if not paths:
        return f"the process is in no cgroup that accounts for its {controller}"
    why = "its cgroup is in none of the mounts that can be seen from here"
    for view, inside in ((root / "proc" / "self", root), (process, process / "root")):
        for mount in _mounts(view, inside, controller):
            below = _below(paths.get(mount.version), mount.root)
            if below is None:
                continue
            folder = mount.point / below
            try:
                (folder / _MARKS[controller][mount.version]).stat()
            except PermissionError:
                why = (
                    f"its files cannot be entered through {process}/root; run the monitor as the service's user with the "
                    "same capabilities, or as root with CAP_SYS_PTRACE"
                )
            except OSError:  # the controller is disabled there, or the process has just ended
                continue
            else:
                return Place(folder, mount.point, mount.version)
    return why


def upwards(place: Place) -> Iterator[Path]:
    """The folders of the process's own level and all above it, up to `mount`."""
    folder = place.folder
    yield folder
    while folder != place.mount and place.mount in folder.parents:
        folder = folder.parent
        yield folder


def membership(process: Path) -> bytes:
    """All of `/proc/PID/cgroup`: while this does not change, the process has not been moved. Raises OSError."""
    return read_whole(f"{process}/cgroup")


def _paths(process: Path, controller: str) -> dict[int, PurePosixPath] | None:
    """version -> the path of the process's cgroup in that hierarchy; None where there is no such process."""
    try:
        # A folder's name is any bytes, and is to be found again under them.
        lines = membership(process).decode(errors="surrogateescape").splitlines()
    except OSError:
        return None
    paths: dict[int, PurePosixPath] = {}
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and controller in controllers.split(","):
            paths[1] = PurePosixPath(path)
        elif colon and not controllers and number == "0":
            paths[2] = PurePosixPath(path)
    return paths


def _mounts(process: Path, inside: Path, controller: str) -> Iterator[_Mount]:
    """The cgroup mounts of a process's namespace, version 1 first: in hybrid mode version 2 lacks controllers."""
    try:
        lines = (process / "mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    mounts: list[_Mount] = []
    for line in lines:
        fields, _, source = line.partition(" - ")
        kind, _, rest = source.partition(" ")
        options = rest.rpartition(" ")[2]
        version = 2 if kind == "cgroup2" else 1 if kind == "cgroup" and controller in options.split(",") else None
        if version is not None:
            _, _, _, shown, point, *_ = fields.split(" ")
            mounts.append(_Mount(inside / _plain(point).lstrip("/"), PurePosixPath(_plain(shown)), version))
    yield from sorted(mounts, key=lambda mount: mount.version)


def _below(path: PurePosixPath | None, root: PurePosixPath) -> PurePosixPath | None:
    """`path` relative to `root`; None where it is not below it, or contains `..`, which hides names."""
    if path is None or not path.is_relative_to(root):
        return None
    below = path.relative_to(root)
    return None if ".." in below.parts else below


def _plain(field: str) -> str:
    """A field of mountinfo without its octal escapes of spaces and the like (proc(5))."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)
