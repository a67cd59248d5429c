"""The registry folder: which agents listen there, and which sockets a killed process has left.

A socket's name is its process's number as that process sees it. The kernel knows better: whoever connects is told who
listens (SO_PEERCRED, unix(7)), as a number of our own PID namespace, 0 where the process is not to be seen from it. So an
agent in a container is found by the number that it has here, a number that was given again is no agent, and the
socket of a living agent is never taken for one that was left.

Root's monitor looks in the folders of users that a service became, too.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from ...protocol import agents_folder, dropped_root
from ..kernel.process import alive

__all__ = ["Registry", "listening_pid"]

# Between an agent's bind and its listen lie microseconds; a socket that nobody listens on after this was left behind.
_YOUNG_SECONDS = 10.0
_UCRED = struct.Struct("3i")  # pid, uid, gid


@dataclass(frozen=True, slots=True)
class _Entry:
    """A socket that was looked at: its inode and birth, so that a new one under the same name is looked at again."""

    inode: int
    born_ns: int
    pid: int


class Registry:
    """The sockets below `root`. `unseen`: the names of agents that listen and whose processes cannot be seen from here."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = Path(agents_folder(root))
        self._known: dict[Path, _Entry] = {}
        self.unseen: set[str] = set()

    def agents(self) -> dict[int, Path]:
        """The socket of each agent by its process. Removes what killed processes have left."""
        found: dict[int, Path] = {}
        known: dict[Path, _Entry] = {}
        self.unseen = set()
        for path in self._folder.glob("*.sock"):
            entry = self._entry(path)
            if entry is None:
                continue
            if entry.pid and alive(entry.pid):
                found[entry.pid] = path
            elif entry.pid == 0:
                self.unseen.add(path.stem)
            else:
                path.unlink(missing_ok=True)  # killed: it could not remove its socket
                continue
            known[path] = entry
        self._known = known
        if os.geteuid() == 0:
            for pid, path in _of_other_users(self._root):
                found.setdefault(pid, path)
        return found

    def _entry(self, path: Path) -> _Entry | None:
        try:
            facts = path.lstat()
        except OSError:  # it has just ended
            return None
        before = self._known.get(path)
        if before and before.pid and (before.inode, before.born_ns) == (facts.st_ino, facts.st_mtime_ns):
            return before
        pid = listening_pid(path)
        if pid is not None:
            return _Entry(facts.st_ino, facts.st_mtime_ns, pid)
        gone = not (path.stem.isdecimal() and alive(int(path.stem)))
        if gone or time.time() - facts.st_mtime > _YOUNG_SECONDS:
            path.unlink(missing_ok=True)
        return None


def listening_pid(path: Path) -> int | None:
    """The process that listens on a unix socket, 0 where it is in a PID namespace that we do not see; None: nobody does."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its queue is full: somebody listens, and does not come to it
            return int(path.stem) if path.stem.isdecimal() else None
        except OSError:
            return None
        pid: int = _UCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
        return pid


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
