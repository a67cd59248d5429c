"""The folder from which an attached process loads its agent, and in which the agent listens: below its temporary folder.

The process may have another root and no right to read our files, so the agent's files are copied to a place that it can read,
through `/proc/PID/root`. The folder's name has the process's pid in its own PID namespace and its start, so that an attached
process can be found without a list.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import BusyError, RefusedError
from ..kernel.process import identity, namespaced_pid

__all__ = ["AgentFolder", "candidates"]

_PACKAGE = Path(__file__).resolve().parents[2]
_COPIED = ("__init__.py", "errors.py", "protocol.py", "agent")
_MOST_BYTES = 65536
# Leaves no name in the namespace where it runs, prints nothing, and does nothing once the folder is gone.
_ENTER = """def enter(folder, page):
    file = folder + "/diagnostics/agent/inject/attached.py"
    with open(file) as source:
        code = compile(source.read(), file, "exec")
    names = {{"__name__": "_highwater_attached"}}
    exec(code, names)
    names["enter"](folder, page)
try:
    enter({folder!r}, globals().get("page", 0))
except BaseException:
    pass
"""
_PREFIX = "highwater-attached-"
# Tried after the service's TMPDIR; the last one is writable also where the root is read-only.
_USUAL = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  # the service's own, and checked before use


class AgentFolder:
    """The agent's folder of process `pid`. `inside`: its path as the process sees it; `outside`: its path for this process."""

    def __init__(self, pid: int, temporary: str) -> None:
        identified = identity(pid)
        start = identified[0].start_ticks if identified else 0
        self.inside = f"{temporary.rstrip('/')}/{_PREFIX}{namespaced_pid(pid) or pid}-{start}"
        self.outside = Path(f"/proc/{pid}/root{self.inside}")
        # A new name for each attach: a pending call of an attach that was given up finds no file when it runs later.
        self._entry = f"enter-{secrets.token_hex(6)}.py"

    @property
    def entry(self) -> str:
        """The path, as the process sees it, of the file that its main thread must run; `page` may be among its globals."""
        return f"{self.inside}/{self._entry}"

    @classmethod
    def of(cls, pid: int) -> AgentFolder | None:
        """The existing folder of process `pid`; None where the process has not been attached to."""
        for temporary in candidates(pid):
            folder = cls(pid, temporary)
            if folder.outside.is_dir() and not folder.outside.is_symlink():
                return folder
        return None

    @classmethod
    def make(cls, pid: int, uid: int, gid: int, version: tuple[int, ...]) -> AgentFolder:
        """Create the folder with the agent's files, owned by user `uid`, for a Python of `version`.

        Raises RefusedError where no temporary folder will do, BusyError where another command has just created one.
        """
        why: list[str] = []
        for temporary in candidates(pid):
            folder = cls(pid, temporary)
            try:
                folder.outside.mkdir(mode=0o700)
            except FileExistsError as error:
                raise BusyError(
                    f"{folder.inside} is there already: another command attaches to process {pid}, or was killed while it did",
                    remedy="wait for it, or remove what it left: `diagnostics attach --detach PID`",
                ) from error
            except OSError as error:
                why.append(f"{temporary}: {error.strerror or error}")
                continue
            try:
                folder._fill(uid, gid, version)
            except OSError as error:
                why.append(f"{temporary}: {error.strerror or error}")
                shutil.rmtree(folder.outside, ignore_errors=True)
                continue
            return folder
        raise RefusedError(
            f"process {pid} has no temporary folder that the agent can be put into ({'; '.join(why) or 'none is there'})",
            remedy="give it one (TMPDIR, a tmpfs; in Kubernetes an emptyDir mounted at /tmp)",
        )

    def report(self) -> dict[str, Any] | None:
        """The process's report on loading the agent (`attached.py`): {"state", "what"}; None: nothing yet."""
        return self._read("told")

    def note(self, facts: dict[str, Any]) -> None:
        """Write how the process was attached into the folder, for a later command or monitor."""
        with self._open("attached.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
            file.write(json.dumps(facts).encode())

    def noted(self) -> dict[str, Any]:
        return self._read("attached.json") or {}

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            with self._open(name, os.O_RDONLY) as file:
                content = json.loads(file.read(_MOST_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None

    def _open(self, name: str, how: int) -> BinaryIO:
        """Open a regular file in the folder. The service owns it and could replace it by a link or a pipe. Raises OSError."""
        folder = os.open(self.outside, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            descriptor = os.open(name, how | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=folder)
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(errno.ENOENT, "no regular file", name)
        return open(descriptor, "wb" if how & os.O_WRONLY else "rb")

    def sockets(self) -> list[Path]:
        """The agent's socket, where it exists."""
        return sorted((self.outside / "agents").glob("*.sock"))

    def remove(self) -> None:
        shutil.rmtree(self.outside, ignore_errors=True)

    def _fill(self, uid: int, gid: int, version: tuple[int, ...]) -> None:
        (self.outside / self._entry).write_text(_ENTER.format(folder=self.inside), encoding="utf-8")
        for name in _COPIED:
            source, copy = _PACKAGE / name, self.outside / "diagnostics" / name
            copy.parent.mkdir(exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy, ignore=_of_other_versions(version))
            else:
                shutil.copy2(source, copy)
        if os.geteuid() == uid:
            return
        for folder, folders, files in os.walk(self.outside):
            for name in (*folders, *files):
                os.chown(Path(folder) / name, uid, gid, follow_symlinks=False)
        os.chown(self.outside, uid, gid, follow_symlinks=False)  # last: until then no other user can enter


def _of_other_versions(version: tuple[int, ...]) -> Callable[[str, list[str]], set[str]]:
    """An `ignore` for copytree: leaves out .pyc files of other versions; those of `version` save the service compiling."""
    ours = f".cpython-{version[0]}{version[1]}.pyc"

    def others(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if name.endswith(".pyc") and not name.endswith(ours)}

    return others


def candidates(pid: int) -> Iterator[str]:
    """Temporary folders of a process, as paths that the process sees."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        environment = b""
    given = [pair[7:] for pair in environment.split(b"\0") if pair.startswith(b"TMPDIR=/")]
    seen: set[str] = set()
    for each in (*map(os.fsdecode, given), *_USUAL):
        try:
            facts = Path(f"/proc/{pid}/root{each}").stat()
        except OSError:
            continue
        if stat.S_ISDIR(facts.st_mode) and each not in seen:
            seen.add(each)
            yield each
