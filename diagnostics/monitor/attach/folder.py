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
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import BusyError, RefusedError
from ..kernel.process import identity, namespaced_pid
from .bytecode import compiled
from .interpreter import Interpreter

__all__ = ["AgentFolder", "candidates"]

_PACKAGE = Path(__file__).resolve().parents[2]
# What the agent uses of the package beside itself, and what of the agent is of no use to a service that runs already: how the
# extensions are built, and how `diagnostics run` starts it.
_BESIDE = ("__init__.py", "errors.py", "protocol.py")
_OUR_SIDE = ("agent/native/", "agent/inject/path/", "agent/inject/launcher.py", "agent/inject/lookout.py")
_MOST_BYTES = 65536
# Leaves no name in the namespace where it runs, prints nothing, and does nothing once the folder is gone. The bytecode beside
# the source is used if it is of this Python.
_ENTER = """def enter(folder, page):
    import marshal
    from _frozen_importlib_external import MAGIC_NUMBER
    def run(name):
        file = folder + "/diagnostics/agent/inject/" + name + ".py"
        try:
            with open(file + "c", "rb") as bytecode:
                content = bytecode.read()
        except OSError:
            content = b""
        if content[:4] == MAGIC_NUMBER:
            code = marshal.loads(memoryview(content)[16:])
        else:
            with open(file) as source:
                code = compile(source.read(), file, "exec", dont_inherit=True)
        names = {{"__name__": "_highwater_" + name}}
        exec(code, names)
        return names
    run("attached")["enter"](folder, page, run("importer"))
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
    def make(cls, pid: int, uid: int, gid: int, interpreter: Interpreter) -> AgentFolder:
        """Create the folder with the agent's files, owned by user `uid`, and their bytecode where it can be made.

        interpreter   that of the process

        Raises RefusedError where no temporary folder will do, BusyError where another command has just created one.
        """
        why: list[str] = []
        bytecode = compiled(pid, interpreter, (uid, gid), _PACKAGE, _sources())
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
                folder._fill(uid, gid, bytecode)
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

    def _fill(self, uid: int, gid: int, bytecode: dict[str, bytes]) -> None:
        (self.outside / self._entry).write_text(_ENTER.format(folder=self.inside), encoding="utf-8")
        package = self.outside / "diagnostics"
        for name in (*_sources(), *_extensions()):
            copy = package / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_PACKAGE / name, copy)
        for name, content in bytecode.items():
            (package / f"{name}c").write_bytes(content)
        if os.geteuid() == uid:
            return
        for folder, folders, files in os.walk(self.outside):
            for name in (*folders, *files):
                os.chown(Path(folder) / name, uid, gid, follow_symlinks=False)
        os.chown(self.outside, uid, gid, follow_symlinks=False)  # last: until then no other user can enter


@cache
def _sources() -> tuple[str, ...]:
    """The agent's source files, as paths in the package."""
    return (*_BESIDE, *(name for name in _names("*.py") if not name.startswith(_OUR_SIDE)))


def _extensions() -> Iterator[str]:
    return _names("*.so")


def _names(pattern: str) -> Iterator[str]:
    for path in sorted((_PACKAGE / "agent").rglob(pattern)):
        yield path.relative_to(_PACKAGE).as_posix()


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
