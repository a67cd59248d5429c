"""Whose code a frame is, and which frame of a stack is to be named: the user's before a library's.

A stack is told by the innermost frame of code that is not installed, within the event loop or the thread that runs it: what is
outside of those is on every stack, and made nothing. A stack without one is told by the innermost library that does more
than carry requests, else by its innermost frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from ..profile import Frame

__all__ = ["LIBRARY", "is_used_library", "named_by", "place_of", "within_loop"]

# A file of an installed library (group: its package), or of the standard library (no group).
LIBRARY: Final = re.compile(
    r"(?:^|/)(?:(?:site|dist)-packages/(?P<package>[^/.]+)|lib/python3\.\d+/(?!site-packages))|^<"
)
# asyncio's files that run the event loop and its callbacks.
_LOOP = re.compile(r"/asyncio/(?:runners|base_events|events)\.py$")
# The functions of event loops, threads and servers that call the service's code. Told by their names: what else is in these
# files is called by the service, as `create_task` is.
_BEGINNINGS = (
    (re.compile(r"/asyncio/base_events\.py$"), frozenset({"_run_once", "run_forever", "run_until_complete"})),
    (re.compile(r"/asyncio/(?:runners|events)\.py$"), frozenset({"run", "_run"})),
    (re.compile(r"/threading\.py$"), frozenset({"_bootstrap", "_bootstrap_inner"})),
    (re.compile(r"/concurrent/futures/thread\.py$"), frozenset({"_worker"})),
    (re.compile(r"/(?:uvicorn|hypercorn|granian|gunicorn)/[^:]*\.py$"), frozenset({"run", "serve", "_serve", "main"})),
)
# Packages that every request passes through: their lines explain nothing.
_CARRIERS = frozenset(
    {
        "anyio", "asgiref", "asyncio", "exceptiongroup", "fastapi", "granian", "gunicorn", "h11", "h2", "httptools",
        "highwater_diagnostics", "hypercorn", "memray", "sniffio", "starlette", "uvicorn", "uvicorn_worker", "uvloop",
        "websockets", "wsproto",
    }
)  # fmt: skip
# Where a file's package begins: what is before it names the machine, and not the code.
_INSTALLED = re.compile(r"^.*/(?:site-packages|dist-packages|lib/python3\.\d+)/")


def within_loop(stack: Sequence[Frame]) -> Sequence[Frame]:
    """The frames within the event loop, innermost first, without those that started it, which are on every stack."""
    loop = next((place for place, frame in enumerate(stack) if _LOOP.search(frame.file)), len(stack))
    return stack[:loop]


def is_used_library(frame: Frame) -> bool:
    """Whether it is a frame of an installed library that does more than carry every request."""
    installed = LIBRARY.search(frame.file)
    return installed is not None and (installed["package"] or "asyncio") not in _CARRIERS


def place_of(frame: Frame) -> str:
    """`parse (app.py:10)`, of an installed package `decode (json/decoder.py:337)`; without a file the function alone."""
    if not frame.file:
        return frame.function
    place = _INSTALLED.sub("", frame.file)
    if place == frame.file:
        place = frame.file.rpartition("/")[2]
    return f"{frame.function} ({place}:{frame.line})" if frame.function else f"{place}:{frame.line}"


def named_by(stack: Sequence[Frame], ours: Callable[[Frame], bool]) -> Frame | None:
    """The frame that this stack (innermost first) is told by; None where it is a stack of diagnostics' own, or empty.

    ours   whether a frame is of the agent's code. Where the innermost frame outside of Python's own library is, the agent
           allocated it for itself; its middleware further out only passes requests on.
    """
    inner = _within_beginning(stack)
    first = next((frame for frame in inner if not _is_pythons(frame)), None)
    if first is None:
        return stack[0] if stack else None
    if ours(first):
        return None
    theirs = [frame for frame in inner if not ours(frame)]
    return (
        next((frame for frame in theirs if not LIBRARY.search(frame.file)), None)
        or next((frame for frame in theirs if is_used_library(frame)), None)
        or stack[0]
    )


def _is_pythons(frame: Frame) -> bool:
    match = LIBRARY.search(frame.file)
    return match is not None and match["package"] is None


def _within_beginning(stack: Sequence[Frame]) -> Sequence[Frame]:
    """The frames within the loop, the thread or the server that called them."""
    for place, frame in enumerate(stack):
        name = frame.function.rpartition(".")[2]
        if any(name in names and file.search(frame.file) for file, names in _BEGINNINGS):
            return stack[:place]
    return stack
