"""Which Python runs in a process, and where in its memory the few things are that attaching needs.

Read from the program and the libraries that the process has mapped, through `/proc/PID/root`: whatever mount namespace it is
in, and whatever it has installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from .elf import read_exports

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
    """
    version     (3, 11, 7, "final"), or what the name of a mapped file tells: (3, 8)
    file        where its symbols are, as the process names it
    addresses   of exported symbols, in the process
    free_threaded   a build without the GIL
    """

    version: tuple[int, ...]
    file: str
    addresses: dict[str, int] = field(default_factory=dict)
    free_threaded: bool = False

    def __str__(self) -> str:
        return "Python " + ".".join(map(str, self.version[:3]))


def find_interpreter(pid: int, proc: Path = _PROC) -> Interpreter | str:
    """The Python in process `pid`, or one sentence that says why none is found. Raises PermissionError."""
    mapped = _mapped_files(pid, proc)
    named: tuple[int, ...] | None = None
    exported = False
    for path, start in mapped.items():
        try:
            exports = read_exports(proc / str(pid) / "root" / path.lstrip("/"), _WANTED, "Py_Version")
        except PermissionError:
            raise
        except (OSError, ValueError):  # deleted since, an empty file, a device
            continue
        if exports is None:
            continue
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


def _why_none(mapped: dict[str, int], exported: bool) -> str:
    if any(_NAMED.search(path) for path in mapped):
        return (
            "it has Python's files mapped and exports none of its functions: its interpreter is linked statically, or its "
            "dynamic symbols were stripped"
        )
    program = next(iter(mapped), "")
    kind = "" if exported or not program else " (or its Python is linked statically and exports nothing)"
    return f"it is no Python: it runs {program or 'a program of the kernel'}{kind}"


def _mapped_files(pid: int, proc: Path) -> dict[str, int]:
    """The program and libraries that are mapped, by the lowest address of each, the program first."""
    found: dict[str, int] = {}
    executable: set[str] = set()
    for line in (proc / str(pid) / "maps").read_text(errors="surrogateescape").splitlines():
        addresses, rights, offset, _device, inode, *path = line.split(None, 5)
        if not path or inode == "0" or path[0].endswith(" (deleted)"):
            continue
        if int(offset, 16) == 0:
            found.setdefault(path[0], int(addresses.split("-")[0], 16))
        if "x" in rights:
            executable.add(path[0])
    code = {path: start for path, start in found.items() if path in executable}
    # Of hundreds of libraries one is Python's: it is named so, or it is the program.
    first = sorted(code, key=lambda path: (not _NAMED.search(path.rpartition("/")[2]), list(code).index(path)))
    return {path: code[path] for path in first}


def _version(number: int) -> tuple[int, ...]:
    """PY_VERSION_HEX: https://docs.python.org/3/c-api/apiabiversion.html."""
    return (number >> 24 & 0xFF, number >> 16 & 0xFF, number >> 8 & 0xFF)


def _version_of(path: str) -> tuple[int, ...] | None:
    found = _NAMED.search(path)
    return (int(found[1]), int(found[2])) if found else None
