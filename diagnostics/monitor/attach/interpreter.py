"""Which Python runs in a process, and the addresses of the symbols that attaching needs.

Read from the program and the libraries that the process has mapped, through `/proc/PID/root`, so in any mount namespace.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from .elf import Exports, read_exports

__all__ = ["Interpreter", "find_interpreter"]

_WANTED = (
    "Py_AddPendingCall",
    "PyRun_SimpleString",
    "Py_Version",
    "_PyRuntime",
    "PyPy_Version",
    "PyPyRun_SimpleString",
)
_NAMED = re.compile(r"(?:lib)?python(\d)\.(\d+)")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A CPython in a process.

    version     (3, 11, 7), or (3, 8) from the name of a mapped file
    file        the program or library that exports its symbols, a path as the process sees it
    addresses   exported symbol -> address in the process's memory
    free_threaded   whether it is a build without the GIL
    """

    version: tuple[int, ...]
    file: str
    addresses: dict[str, int] = field(default_factory=dict)
    free_threaded: bool = False

    def __str__(self) -> str:
        return "Python " + ".".join(map(str, self.version[:3]))


def find_interpreter(pid: int, proc: Path = _PROC) -> Interpreter | str:
    """The Python in process `pid`, or a sentence why none was found. Raises PermissionError."""
    files = _mapped_files(pid, proc)
    mapped = [file.path for file in files]
    named: tuple[int, ...] | None = None
    exported = False
    for file in files:
        exports = _exports_of(file, proc / str(pid))
        if exports is None:
            continue
        path, start = file.path, file.start
        exported = exported or bool(exports.symbols)
        if exports.symbols.keys() & {"PyPy_Version", "PyPyRun_SimpleString"}:
            return "it runs PyPy, and the agent needs CPython"
        addresses = {name: start + value - exports.base for name, value in exports.symbols.items()}
        if "PyRun_SimpleString" not in addresses:
            continue
        if exports.value is None:
            named = _version_of(path) or named or (0,)
            continue
        free = bool(re.search(r"python3\.\d+t", path))
        return Interpreter(_version(exports.value), path, addresses, free)
    if named is not None:
        return Interpreter(named if named != (0,) else _version_of(" ".join(mapped)) or (3, 10), "")
    return _why_none(mapped, exported)


def _why_none(mapped: list[str], exported: bool) -> str:
    if any(_NAMED.search(path) for path in mapped):
        return (
            "it has Python's files mapped and exports none of its functions: its interpreter is linked statically, or its "
            "dynamic symbols were stripped"
        )
    program = mapped[0] if mapped else ""
    kind = "" if exported or not program else " (or its Python is linked statically and exports nothing)"
    return f"it is no Python: it runs {program or 'a program of the kernel'}{kind}"


@dataclass(frozen=True, slots=True)
class _Mapped:
    """A file that a process has mapped: path, lowest mapped address, inode, and the mapping's range (its map_files name)."""

    path: str
    start: int
    inode: int
    mapping: str


def _mapped_files(pid: int, proc: Path) -> list[_Mapped]:
    """The mapped program and libraries, those with Python's names first."""
    files: dict[str, _Mapped] = {}
    executable: set[str] = set()
    for line in (proc / str(pid) / "maps").read_text(errors="surrogateescape").splitlines():
        addresses, rights, offset, _device, inode, *path = line.split(None, 5)
        if not path or inode == "0":
            continue
        if int(offset, 16) == 0:
            files.setdefault(path[0], _Mapped(path[0], int(addresses.split("-")[0], 16), int(inode), addresses))
        if "x" in rights:
            executable.add(path[0])
    code = [file for path, file in files.items() if path in executable]
    # One of hundreds of libraries has Python's symbols: libpython by its name, or the program, which is mapped first.
    return sorted(code, key=lambda file: not _NAMED.search(file.path.rpartition("/")[2]))


def _exports_of(file: _Mapped, process: Path) -> Exports | None:
    """The exports of a mapped file; None where it has no symbols, or cannot be found. Raises PermissionError.

    The kernel writes the path relative to the reader's root where the file lies below that, else relative to the mount's; a
    file that was deleted since (by an upgrade) can be read through /proc/PID/exe or map_files only.
    """
    refused: PermissionError | None = None
    places = (
        process / "map_files" / file.mapping,
        process / "exe",
        process / "root" / file.path.lstrip("/"),
        Path(file.path),
    )
    for place in places:
        try:
            if place.stat().st_ino == file.inode:
                return read_exports(place, _WANTED, "Py_Version")
        except PermissionError as error:
            refused = error if place.name == "exe" else refused  # map_files needs more rights than attaching
        except (OSError, ValueError):  # no such file, an empty file, a device
            continue
    if refused is not None:
        raise refused
    return None


def _version(number: int) -> tuple[int, ...]:
    """(major, minor, micro) of PY_VERSION_HEX: https://docs.python.org/3/c-api/apiabiversion.html."""
    return (number >> 24 & 0xFF, number >> 16 & 0xFF, number >> 8 & 0xFF)


def _version_of(path: str) -> tuple[int, ...] | None:
    match = _NAMED.search(path)
    return (int(match[1]), int(match[2])) if match else None
