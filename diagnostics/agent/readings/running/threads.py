"""Every thread's name, stack and locals. Cheap, and read in the service itself: a forked child has one thread only."""

from __future__ import annotations

import sys
import threading
from typing import Any

from ...loops.frames import is_of_function, locals_of
from ...unpatched import get_ident
from .awaits import FrameKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["ThreadFrame", "frames_with_locals", "read"]

_MAX_FRAMES = 64
# Locals of more threads than this are not read: each thread costs a copy of all its frames' locals.
_MAX_THREADS = 2_000


class ThreadFrame:
    """A frame of another thread, as it was before the fork: a root of the object graph. `locals` is a copy."""

    __slots__ = ("key", "locals", "thread")

    def __init__(self, thread: str, key: FrameKey, names: dict[str, Any]) -> None:
        self.thread = thread
        self.key = key
        self.locals = names


def read() -> list[tuple[str, list[FrameKey]]]:
    """(name, frames) of each thread but the caller's, outermost frame first; about 20 microseconds a thread."""
    return [(name, [_key(frame) for frame in frames][::-1]) for name, frames in _stacks()]


def frames_with_locals() -> list[ThreadFrame]:
    """The frames of all threads but the caller's, with their locals; module and class bodies left out.

    To be called in the service itself, right before a fork.
    """
    thread_frames: list[ThreadFrame] = []
    for number, (name, frames) in enumerate(_stacks()):
        if number >= _MAX_THREADS:
            break
        functions = (frame for frame in frames if is_of_function(frame))
        thread_frames.extend(ThreadFrame(name, _key(frame), locals_of(frame)) for frame in functions)
    return thread_frames


def _stacks() -> Iterator[tuple[str, list[FrameType]]]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    current = sys._current_frames()
    # A frame with itself among its locals is a reference cycle, which would keep all its callers' locals alive.
    current.pop(get_ident(), None)
    for ident, frame in current.items():
        frames: list[FrameType] = []
        walked: FrameType | None = frame
        while walked is not None and len(frames) < _MAX_FRAMES:
            frames.append(walked)
            walked = walked.f_back
        yield names.get(ident, "(not a Python thread)"), frames


def _key(frame: FrameType) -> FrameKey:
    code = frame.f_code
    return (code.co_qualname, code.co_filename, frame.f_lineno or code.co_firstlineno)
