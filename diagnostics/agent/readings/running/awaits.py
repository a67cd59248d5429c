"""Where a coroutine waits: its whole await chain, through async generators, down to the future at its end.

`Task.get_stack()` gives the outermost frame only, and following `cr_await` ends at the first async generator, which is just
where streaming code waits: the awaitable there (`async_generator_asend`) has no attribute for its generator. But
`gc.get_referents` shows it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

from ...loops.coroutines import coroutine_of
from ...loops.futures import declares, is_future, is_task
from ..classes import name_of

__all__ = ["FrameKey", "chain", "frame_key", "frames_of_task", "own_frame"]

# (function, file, line); line 0 where it is not known
FrameKey = tuple[str, str, int]

# attributes (frame, awaited object) of coroutines, async generators and generators
_ATTRIBUTES = (("cr_frame", "cr_await"), ("ag_frame", "ag_await"), ("gi_frame", "gi_yieldfrom"))

# Awaitables of C that wrap another one, which only `gc.get_referents` shows.
_HANDING_ON = frozenset(
    {
        "anext_awaitable",
        "async_generator_asend",
        "async_generator_athrow",
        "coroutine_wrapper",
        "FutureIter",
    }
)
# A longer chain is a cycle or a recursion; its outer part suffices.
_MAX_LINKS = 200
_MAX_TASKS = 20


def own_frame(link: Any) -> Any:
    """The frame of a coroutine, generator or async generator; None for any other object, and for one that has ended."""
    # `hasattr` of the class: that of an object may run the application's code.
    for frame, _awaited in _ATTRIBUTES:
        if declares(type(link), frame):
            return getattr(link, frame)
    return None


def frame_key(link: Any) -> FrameKey | None:
    """Function, file and current line of a coroutine or generator; None for any other object.

    A coroutine of Cython has no Python frame: its key is its name, no file, and line 0.
    """
    frame = own_frame(link)
    if frame is not None:
        code = frame.f_code
        return (code.co_qualname, code.co_filename, frame.f_lineno or code.co_firstlineno)
    if _is_coroutine_like(link):
        return (str(getattr(link, "__qualname__", name_of(type(link)))), "", 0)
    return None


def chain(coroutine: Any) -> Iterator[Any]:
    """The coroutine, the object that it awaits, the object that this one awaits, and so on, to a future if the end is known."""
    link, links = coroutine, 0
    while link is not None and links < _MAX_LINKS:
        yield link
        link = _awaited(link)
        links += 1


def frames_of_task(task: Any) -> list[FrameKey]:
    """Where a task waits, outermost frame first, on through the tasks that it awaits itself."""
    frames: list[FrameKey] = []
    seen: set[int] = set()
    while task is not None and id(task) not in seen and len(seen) < _MAX_TASKS:
        seen.add(id(task))
        last = None
        for last in chain(coroutine_of(task)):
            key = frame_key(last)
            if key is not None:
                frames.append(key)
        # The future at the end may be another task: go on there.
        task = last if is_task(last) else None
    return frames


def _awaited(link: Any) -> Any:
    for _frame, attribute in _ATTRIBUTES:
        if declares(type(link), attribute):
            return getattr(link, attribute)
    if name_of(type(link)) in _HANDING_ON:
        for referent in gc.get_referents(link):
            if _is_coroutine_like(referent) or is_future(referent) or name_of(type(referent)) in _HANDING_ON:
                return referent
    return None


def _is_coroutine_like(thing: Any) -> bool:
    return any(declares(type(thing), awaited) for _frame, awaited in _ATTRIBUTES)
