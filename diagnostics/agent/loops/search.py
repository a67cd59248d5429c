"""Finds this process's running event loops from its threads' stacks.

Since Python 3.14 asyncio keeps its tasks in lists of each thread, and only `asyncio.all_tasks(loop)` reads them, which needs
the loop. A loop written in Python is `self` in the frame of `run_forever` on its thread's stack. A loop written in C, as
uvloop's, has no frame: it is searched among the variables of its thread's frames (asyncio's Runner has the main task, which
refers to its loop).

Only Python 3.13 and later are searched in this way: before, each look at a running frame copies its variables.
"""

from __future__ import annotations

import sys
import weakref

from .frames import locals_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    # The agent never imports asyncio into a service that does without it.
    import asyncio
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any

__all__ = ["LoopSearch"]

# A deeper stack is a recursion.
_MAX_FRAMES = 500
_RUNS = "run_forever"


class LoopSearch:
    """The loops found, remembered weakly for as long as they live: tasks may wait on a loop that does not run just now."""

    def __init__(self) -> None:
        self._known: dict[int, weakref.ref[asyncio.AbstractEventLoop]] = {}

    def known(self) -> list[asyncio.AbstractEventLoop]:
        """The loops found so far that are not closed; does not search."""
        loops: list[asyncio.AbstractEventLoop] = []
        for key, reference in list(self._known.items()):
            loop = reference()
            if loop is None or loop.is_closed():
                self._known.pop(key, None)
            else:
                loops.append(loop)
        return loops

    def search(self) -> list[asyncio.AbstractEventLoop]:
        """Search the stacks of all threads, then return as `known` does.

        Takes less than a microsecond for each frame, more where a loop in C may run: frequent callers cache the result.
        """
        base = _base()
        future = getattr(sys.modules.get("asyncio.futures"), "Future", None)
        if base is None or future is None:
            return []
        native = _native(base) is not None
        # A frame that is held by a local variable of its own is a reference cycle: this thread's stack begins at the caller.
        own = LoopSearch.search.__code__
        threads = [frame for frame in sys._current_frames().values() if frame.f_code is not own]
        for innermost in (*threads, sys._getframe(1)):
            for loop in _in_thread(innermost, base, future, native):
                self._known[id(loop)] = weakref.ref(loop)
        return self.known()

    def blind_to(self) -> str | None:
        """The package of a loop class in C that is imported, where no loop was found: such a loop may run unseen. Else None."""
        if any(loop.is_running() for loop in self.known()):
            return None
        kind = _native(_base())
        return kind.__module__.partition(".")[0] if kind is not None else None


def _in_thread(
    innermost: FrameType | None, base: type, future: type, native: bool
) -> Iterator[asyncio.AbstractEventLoop]:
    """The loops that run in this thread, several where one was started within another. `native`: one may be written in C."""
    frames: list[FrameType] = []
    has_loop = False
    frame = innermost
    while frame is not None and len(frames) < _MAX_FRAMES:
        if frame.f_code.co_name == _RUNS:
            loop = locals_of(frame).get("self")
            if issubclass(type(loop), base):
                has_loop = True
                yield loop  # type: ignore[misc]  # its class says so
        frames.append(frame)
        frame = frame.f_back
    if native and not has_loop:
        for frame in frames:
            yield from _in_variables(frame, base, future)


def _in_variables(frame: FrameType, base: type, future: type) -> Iterator[asyncio.AbstractEventLoop]:
    """Running loops among a frame's locals, attributes of its `self` and globals that its code uses, or of futures there."""
    variables = locals_of(frame)
    candidates = list(variables.values()) if variables is not frame.f_globals else []
    instance = variables.get("self")
    if instance is not None:
        candidates.extend(_attributes(instance))
    candidates.extend(frame.f_globals.get(name) for name in frame.f_code.co_names)
    for candidate in candidates:
        kind = type(candidate)
        try:
            loop = candidate.get_loop() if issubclass(kind, future) else candidate
        except RuntimeError:  # a future that was never initialised has none
            continue
        # `issubclass` of the type, not `isinstance`: that may run the application's code.
        if issubclass(type(loop), base) and loop.is_running():
            yield loop


def _attributes(instance: Any) -> list[Any]:
    try:
        return list(object.__getattribute__(instance, "__dict__").values())
    except (AttributeError, RuntimeError, TypeError):  # no `__dict__`, or another thread changes it
        return []


def _base() -> type | None:
    base: type | None = getattr(sys.modules.get("asyncio.events"), "AbstractEventLoop", None)
    return base


def _native(base: type | None) -> type | None:
    """An imported loop class that is not written in Python; None where there is none."""
    return next((kind for kind in _below(base) if _is_native(kind)), None)


def _below(kind: type | None) -> Iterator[type]:
    kinds: list[type] = [] if kind is None else type.__subclasses__(kind)
    for below in kinds:
        yield below
        yield from _below(below)


def _is_native(kind: type) -> bool:
    """Whether `run_forever` of this loop class is no Python function."""
    for base in kind.__mro__:
        if _RUNS in base.__dict__:
            return type(base.__dict__[_RUNS]) is not type(_is_native)  # not `__code__`: a Cython function has one
    return False
