"""The registry folder: which agents listen there, and which sockets a killed process has left.

A socket's name is its process's number as that process sees it. The kernel knows better: whoever connects is told who
listens (SO_PEERCRED, unix(7)), as a number of our own PID namespace, 0 where the process is not to be seen from it. So an
agent in a container is found by the number that it has here, a number that was given again is no agent, and the
socket of a living agent is never taken for one that was left.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from ..protocol import agents_folder
from .process import alive

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
