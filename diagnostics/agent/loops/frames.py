"""Reads the locals of a frame without keeping them alive.

Before Python 3.13 `frame.f_locals` is a dictionary that the frame keeps until it ends, with all values of that moment: what the
coroutine deletes later is not freed. Where one of them is an error that is on its way, its traceback refers to the frame, and
so to the error: a reference cycle, which keeps all that its frames hold until a garbage collection. Only `locals_of` may read
`f_locals`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

__all__ = ["is_of_function", "locals_of"]

# Flag of a function's code (inspect.CO_OPTIMIZED).
_CO_OPTIMIZED = 1
_FRAMES_KEEP_THEM = sys.version_info < (3, 13)


def is_of_function(frame: FrameType) -> bool:
    """Whether it is the frame of a function. The locals of a module's or class's body are its namespace."""
    return bool(frame.f_code.co_flags & _CO_OPTIMIZED)


def locals_of(frame: FrameType) -> dict[str, Any]:
    """The names and values of a frame's locals: of a function a copy, of a module's or class's body the namespace itself."""
    names = frame.f_locals
    if not is_of_function(frame):
        return names
    values = dict(names)
    # Not where the program has called `locals()` itself, nor where a debugger follows the frame: it writes the dictionary back.
    # Three references: the frame, `names` and the argument of getrefcount.
    if _FRAMES_KEEP_THEM and frame.f_trace is None and sys.getrefcount(names) <= 3:
        names.clear()
    return values
