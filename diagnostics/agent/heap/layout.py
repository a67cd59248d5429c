"""Where CPython keeps its frames, by version, and whether this process is one where that has been tried.

The offsets are those of CPython's own headers (`pycore_frame.h`, `cpython/code.h`, `cpython/pystate.h`) on 64-bit
Linux, in bytes. They are not believed: `frames` gives what Python itself says of the stack of now, and the extension
compares the two, word by word, before it reads any other frame.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any

__all__ = ["frames", "offsets", "why_not"]

# The order is that of `lay_out` in ../native/live/module.c:
#   in the thread's state: its innermost frame, or what leads to it; -1, or where in that
#   in a frame: code, the frame outside of it, the instruction, the owner; owners below this run Python code
#   in a code: file's name, qualified name
_OFFSETS = {
    (3, 11): (56, 8, 32, 48, 56, 69, 3, 112, 128),
    (3, 12): (56, 0, 0, 8, 56, 70, 3, 112, 128),
    (3, 13): (72, -1, 0, 8, 56, 70, 3, 112, 128),
    (3, 14): (72, -1, 0, 8, 56, 74, 3, 112, 128),
}
# In a frame object: the interpreter's frame.
_OBJECT_FRAME = 24
_MOST_FRAMES = 64


def why_not() -> str | None:
    """Why the heap of this process is not sampled, where that has not been tried or is known not to work."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} {version} is not CPython"
    if sys.version_info[:2] not in _OFFSETS:
        known = ", ".join(f"{major}.{minor}" for major, minor in _OFFSETS)
        return f"the frames of CPython {version} are not known (known: {known})"
    if "t" in sys.abiflags:
        return f"CPython {version} is a build without the GIL, whose allocator is another one"
    if hasattr(sys, "gettotalrefcount"):
        return f"CPython {version} is a debug build, whose objects are laid out differently"
    machine = os.uname().machine
    if sys.platform != "linux" or machine != "x86_64" or sys.maxsize < 1 << 32:
        return f"it has not been tried on {sys.platform} on {machine}, only on Linux on x86_64"
    if not _has_glibc():
        return "it has not been tried with another C library than glibc"
    chosen = "" if sys.flags.ignore_environment else os.environ.get("PYTHONMALLOC", "")
    if chosen not in ("", "default", "pymalloc"):
        return f"PYTHONMALLOC={chosen}: it has been tried with Python's own allocator (pymalloc) only"
    if sys.flags.dev_mode:
        return "Python's development mode puts its debugging hooks before the allocators"
    return None


def offsets() -> tuple[int, ...]:
    """For `lay_out`, of this version."""
    return (*_OFFSETS[sys.version_info[:2]], _code_start(), _OBJECT_FRAME)


def frames(innermost: FrameType) -> tuple[tuple[Any, ...], ...]:
    """What Python says of a stack: (frames, lines, codes, files' names, qualified names), innermost first."""
    stack: list[FrameType] = []
    frame: FrameType | None = innermost
    while frame is not None and len(stack) < _MOST_FRAMES:
        stack.append(frame)
        frame = frame.f_back
    codes: list[CodeType] = [each.f_code for each in stack]
    return (
        tuple(stack),
        tuple(each.f_lineno or 0 for each in stack),
        tuple(codes),
        tuple(code.co_filename for code in codes),
        tuple(code.co_qualname for code in codes),
    )


def _code_start() -> int:
    """The instructions are a code's variable part: they begin where its fixed part ends."""
    return type(why_not.__code__).__basicsize__


def _has_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError):  # a C library that does not know the name
        return False
