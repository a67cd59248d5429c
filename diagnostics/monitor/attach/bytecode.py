"""The agent's files as bytecode of a service's Python, so that the service need not compile them.

Compiling there would take the GIL ten times as long as loading, and leave half a MiB in the service's allocators. The bytecode
is made by a Python of the same minor version: this command's own, or else the service's program itself, which is run for that
as the service's user. The latter only where the service is in this command's own namespaces: a program of a container is not
run outside of it.

The interpreter is given sources and gives bytecode back, by pipes. It writes no file, since one that the service's user could
replace must not be read by root.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

from .interpreter import Interpreter

__all__ = ["compiled"]

# In: a source, then its path, each after its length; out: the content of its .pyc file, likewise. The header is of PEP 552: an
# unchecked hash, since only the agent's own importer reads these. Without docstrings and assertions (optimize=2).
_COMPILE: Final = """
import marshal, sys
from _frozen_importlib_external import MAGIC_NUMBER
def read():
    return sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4), "little"))
while source := read():
    code = compile(source, read().decode(), "exec", dont_inherit=True, optimize=2)
    content = MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(code)
    sys.stdout.buffer.write(len(content).to_bytes(4, "little") + content)
"""
# A fifth of a second of CPU; on a machine with a hundred busy processes a command of low priority waits that long for it.
_SECONDS: Final = 60.0
_PROGRAM: Final = re.compile(r"python(3(\.\d+)?)?")
_NAMESPACES: Final = ("mnt", "pid", "user", "net")


def compiled(
    pid: int, interpreter: Interpreter, owner: tuple[int, int], package: Path, names: Iterable[str]
) -> dict[str, bytes]:
    """Content of a .pyc file for each of the sources `names` below `package`; empty where no such Python may be run.

    owner   the effective uid and gid of process `pid`
    """
    # Where the format differs all the same, as between pre-releases, the service sees that and compiles.
    if sys.version_info[:2] == interpreter.version[:2] and sys.executable:
        made_by: tuple[str | None, tuple[int, int] | None, str] = (sys.executable, None, "")
    else:
        made_by = (_program_of(pid), owner, _library_path(pid))
    program, user, libraries = made_by
    if not program:
        return {}
    try:
        return _made(program, user, libraries, package, tuple(names))
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}  # the service compiles, as if there were no such Python


def _program_of(pid: int) -> str | None:
    """The path of a process's program, if it is a Python and a file of this command's own namespaces."""
    process, own = Path(f"/proc/{pid}"), Path("/proc/self")
    try:
        program = (process / "exe").readlink()
        same = program.samefile(process / "exe") and (process / "root").samefile("/")
        same = same and all(
            (process / "ns" / name).readlink() == (own / "ns" / name).readlink() for name in _NAMESPACES
        )
    except OSError:
        return None
    return str(program) if same and _PROGRAM.fullmatch(program.name) else None


def _library_path(pid: int) -> str:
    """The process's LD_LIBRARY_PATH, by which its program finds its libpython."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return ""
    name = b"LD_LIBRARY_PATH="
    return next((os.fsdecode(each[len(name) :]) for each in environment.split(b"\0") if each.startswith(name)), "")


@lru_cache(maxsize=8)  # of many workers all are alike; a failure is not kept
def _made(
    program: str, owner: tuple[int, int] | None, library_path: str, package: Path, names: tuple[str, ...]
) -> dict[str, bytes]:
    words = b"".join(_framed((package / name).read_bytes() or b"\n") + _framed(name.encode()) for name in names)
    options: dict[str, object] = {}
    if owner is not None and owner[0] != os.geteuid():
        options = {"user": owner[0], "group": owner[1], "extra_groups": []}
    done = subprocess.run(
        [program, "-I", "-S", "-c", _COMPILE],
        input=words + bytes(4),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"LD_LIBRARY_PATH": library_path} if library_path else {},
        cwd="/",
        timeout=_SECONDS,
        check=True,
        **options,  # type: ignore[call-overload]
    )
    return dict(zip(names, _unframed(done.stdout), strict=True))


def _framed(content: bytes) -> bytes:
    return len(content).to_bytes(4, "little") + content


def _unframed(framed: bytes) -> list[bytes]:
    contents, at = [], 0
    while at < len(framed):
        size = int.from_bytes(framed[at : at + 4], "little")
        contents.append(framed[at + 4 : at + 4 + size])
        at += 4 + size
    return contents
