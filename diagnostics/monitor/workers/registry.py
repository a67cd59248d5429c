"""The registry folder: the agents that listen there, and the removal of sockets that killed processes have left.

A socket's name is its process's pid in that process's own PID namespace, and nothing is concluded from it. On connecting the
kernel reports the listener's pid (SO_PEERCRED, unix(7)) in our own PID namespace, 0 where the process is not visible there.
So an agent in a container is found by its pid here; one that is not visible is reported as such, and joined with no process.

A socket is removed only where no process listens on it any more (the kernel refuses the connection), or where its process
has ended; a living agent's never is, in whichever namespace.

Root's monitor also reads the folders of users to which a service has dropped its privileges; and every monitor reads those of
attached processes, each for that process alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...protocol import agents_folder, dropped_root
from ..kernel.process import Identity, identity, lives, proc_is_ours, runs
from ..kernel.short_path import short_path
from .attachments import Attachments
from .listener import full_queue_holder

__all__ = ["Registry", "listening_pid"]

# Seconds after which a socket without a listener counts as left behind: an agent listens microseconds after its bind.
_YOUNG_SECONDS = 10.0
# Seconds after which a folder's time of change says that nothing has changed since: file systems have ticks of up to two.
_SETTLED_SECONDS = 3.0
_UCRED = struct.Struct("3i")  # pid, uid, gid


@dataclass(frozen=True, slots=True)
class _Entry:
    """A known socket: its inode and birth, so that a new one under the same name is examined again; and its listener, None
    where the process is not visible here."""

    inode: int
    born_ns: int
    who: Identity | None


@dataclass(frozen=True, slots=True)
class _Peer:
    """A listener: pid in our namespace (0: not visible there) and effective uid, None where only the pid is known."""

    pid: int
    uid: int | None


class Registry:
    """The sockets below `root`. `unseen`: names of sockets whose listening processes are not visible here."""

    def __init__(self, root: Path, attached: Attachments | None = None) -> None:
        self._root = root
        self._attached = attached or Attachments(root)
        self._folder = Path(agents_folder(root))
        self._known: dict[Path, _Entry] = {}
        self._others = _OtherUsers(root)
        self.unseen: set[str] = set()

    def agents(self) -> dict[int, Path]:
        """pid -> socket of each agent. Removes sockets that killed processes have left."""
        agents: dict[int, Path] = {}
        known: dict[Path, _Entry] = {}
        self.unseen = set()
        own_uid = os.geteuid()
        folders = [(self._folder, own_uid)]
        if own_uid == 0:
            folders += self._others.folders()
        for folder, uid in folders:
            for path in _sockets(folder):
                entry = self._entry(path, None if folder == self._folder else uid)
                if entry is None:
                    continue
                known[path] = entry
                if entry.who is None:
                    self.unseen.add(path.stem)
                else:
                    agents.setdefault(entry.who.pid, path)
        for folder, pid in self._attached.folders():
            for path in _sockets(folder):
                entry = self._entry(path, None)
                if entry is not None and entry.who is not None and entry.who.pid == pid:
                    known[path] = entry
                    agents.setdefault(pid, path)
        self._known = known
        return agents

    def _entry(self, path: Path, uid: int | None) -> _Entry | None:
        """The listener of a socket; None where there is none, and removes the socket. `uid`: the user that may listen there."""
        try:
            facts = path.lstat()
        except OSError:  # it has just ended
            return None
        before = self._known.get(path)
        if before and before.who and (before.inode, before.born_ns) == (facts.st_ino, facts.st_mtime_ns):
            if lives(before.who):
                return before
            _remove(path, facts)  # killed: it could not remove its socket
            return None
        peer = _peer(path)
        if peer is None:
            if time.time() - facts.st_mtime > _YOUNG_SECONDS:
                _remove(path, facts)
            return None
        if uid is not None and peer.uid not in (uid, None):
            return None  # the folder's user has put another user's socket there
        if peer.pid == 0 or not proc_is_ours():
            return _Entry(facts.st_ino, facts.st_mtime_ns, None)
        identified = identity(peer.pid)
        if identified is not None and lives(identified[0]):
            return _Entry(facts.st_ino, facts.st_mtime_ns, identified[0])
        if runs(peer.pid):  # /proc hides it (hidepid): it cannot be read
            return _Entry(facts.st_ino, facts.st_mtime_ns, None)
        _remove(path, facts)
        return None


def _sockets(folder: Path) -> list[Path]:
    """The sockets in a registry's folder. It is looked into several times a second: `Path.glob` takes ten times as long."""
    try:
        names = os.listdir(folder)  # noqa: PTH208  # as above
    except OSError:  # not made yet, or not ours to read
        return []
    return [folder / name for name in names if name.endswith(".sock")]


def listening_pid(path: Path) -> int | None:
    """The pid of the listener of a unix socket, 0 where it is not visible in our PID namespace; None where there is none."""
    peer = _peer(path)
    return None if peer is None else peer.pid


def _peer(path: Path) -> _Peer | None:
    """The listener of a unix socket; None where the kernel refuses the connection."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)
        try:
            with short_path(path) as address:
                probe.connect(address)
        except BlockingIOError:  # its queue is full: the listener does not accept
            return _Peer(full_queue_holder(path), None)
        except OSError as error:
            # Connecting is forbidden (a folder's mode, a security module): there may be a listener.
            return None if error.errno in (errno.ECONNREFUSED, errno.ENOENT) else _Peer(0, None)
        pid, uid, _gid = _UCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return _Peer(pid, uid)


class _OtherUsers:
    """The registries of users to which services of root have dropped their privileges.

    The user may change such a folder at any moment, also into a link: nothing is created in it, only that user's processes
    count as listeners, and a socket is removed through a descriptor of the folder that was checked.

    The temporary folder, which may have thousands of names, is listed again only when it has changed since.
    """

    def __init__(self, root: Path) -> None:
        pattern = Path(dropped_root(root, 0))  # <temporary folder>/highwater-<uid>/of-<this registry>
        self._temporary, self._registry = pattern.parent.parent, pattern.name
        self._listed: tuple[int, int] | None = None  # the folder's inode and change, where a later change would show
        self._users: list[int] = []

    def folders(self) -> Iterator[tuple[Path, int]]:
        """(folder of the sockets, uid) of each."""
        for uid in self._listed_users():
            home = self._temporary / f"highwater-{uid}"
            folder = home / self._registry
            agents = Path(agents_folder(folder))
            if all(_private(each, uid) for each in (home, folder, agents)):
                yield agents, uid

    def _listed_users(self) -> list[int]:
        """The users that have a folder of ours in the temporary folder."""
        try:
            facts = os.stat(self._temporary)  # noqa: PTH116  # as above
            changed = (facts.st_ino, facts.st_mtime_ns)
            if changed != self._listed:
                names = os.listdir(self._temporary)  # noqa: PTH208  # as above
                words = [name.removeprefix("highwater-") for name in names if name.startswith("highwater-")]
                self._users = [
                    int(word) for word in words if word.isdecimal() and word == str(int(word)) and word != "0"
                ]
                # Two changes within a tick of the file system's clock have one time: a list that young is made again.
                self._listed = changed if time.time() - facts.st_mtime > _SETTLED_SECONDS else None
        except OSError:
            self._listed, self._users = None, []
        return self._users


def _private(folder: Path, uid: int) -> bool:
    """Whether `folder` is a folder (no link) that only this user can enter."""
    try:
        facts = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == uid and not stat.S_IMODE(facts.st_mode) & 0o077


def _remove(path: Path, looked_at: os.stat_result) -> None:
    """Remove a socket, if `path` is still the file that was examined."""
    with contextlib.suppress(OSError):  # changed meanwhile: it is examined again next time
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_ino == looked_at.st_ino:
                os.unlink(path.name, dir_fd=folder)
        finally:
            os.close(folder)
