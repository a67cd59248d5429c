"""Which agents listen below a registry folder, and for root's monitor, in the folders of users that a service became."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from ..protocol import agents_folder, dropped_root
from .process import alive

__all__ = ["registered_sockets"]


def registered_sockets(root: Path) -> dict[int, Path]:
    """The socket of each process that has an agent and lives.

    A process that a signal ended could not remove its socket: it is removed here, with the next look.
    """
    found = {}
    for pid, path in _sockets(Path(agents_folder(root))):
        if alive(pid):
            found[pid] = path
        else:
            path.unlink(missing_ok=True)
    if os.geteuid() == 0:
        for pid, path in _of_other_users(root):
            found.setdefault(pid, path)
    return found


def _sockets(folder: Path) -> list[tuple[int, Path]]:
    return [(int(path.stem), path) for path in folder.glob("*.sock") if path.stem.isdecimal()]


def _of_other_users(root: Path) -> list[tuple[int, Path]]:
    """Such a folder is its user's to change at any moment, also into a link: nothing is made in it, and what is removed is
    removed by a descriptor of the folder that was looked at."""
    pattern = Path(dropped_root(root, 0))  # <temporary folder>/highwater-<uid>/of-<this registry>
    users = pattern.parent.parent.glob("highwater-*")
    found = []
    for home in users:
        uid = home.name.removeprefix("highwater-")
        if not uid.isdecimal() or uid == "0":
            continue
        folder = home / pattern.name
        agents = Path(agents_folder(folder))
        if all(_private(each, int(uid)) for each in (home, folder, agents)):
            for pid, path in _sockets(agents):
                if _runs_as(pid, int(uid)):
                    found.append((pid, path))
                elif not alive(pid):
                    _remove(agents, path.name, int(uid))
    return found


def _private(folder: Path, uid: int) -> bool:
    """Whether it is a folder, no link, that this user alone can enter."""
    try:
        facts = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == uid and not stat.S_IMODE(facts.st_mode) & 0o077


def _remove(folder: Path, name: str, uid: int) -> None:
    with contextlib.suppress(OSError):  # changed since: it is looked at again with the next look
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_uid == uid:
                os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)


def _runs_as(pid: int, uid: int) -> bool:
    """The effective user. (/proc/PID belongs to root where the process has dropped privileges and may not be dumped.)"""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    return any(line.split()[2] == str(uid) for line in lines if line.startswith("Uid:")) and alive(pid)
