"""Finds the app's line that holds most memory in a profile."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...analysis.profile import Frame, Profile

__all__ = ["HeldLine", "leads_to_own", "own_first", "own_names", "top_line"]

# A file of an installed library (group: its package), or of the standard library (no group).
_LIBRARY = re.compile(r"(?:^|/)(?:(?:site|dist)-packages/(?P<package>[^/.]+)|lib/python3\.\d+/(?!site-packages))|^<")
# asyncio's files that run the event loop and its callbacks.
_LOOP = re.compile(r"/asyncio/(?:runners|base_events|events)\.py$")
# Packages that every request passes through: their lines explain nothing.
_CARRIERS = frozenset(
    {
        "anyio", "asgiref", "asyncio", "exceptiongroup", "fastapi", "granian", "gunicorn", "h11", "h2", "httptools",
        "highwater_diagnostics", "hypercorn", "memray", "sniffio", "starlette", "uvicorn", "uvicorn_worker", "uvloop",
        "websockets", "wsproto",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HeldLine:
    """A line of the app, the bytes that were allocated under it and are still held, and their share of all held bytes."""

    frame: Frame
    bytes: int
    share: float

    def __str__(self) -> str:
        return f"{self.frame.file}:{self.frame.line} {self.frame.function}"


def top_line(profile: Profile, source: str) -> HeldLine | None:
    """The app's own line under which most bytes are held; None where no stack has one.

    The app's own files are those whose path contains `source`, except libraries that are installed below it. Where these hold
    nothing, as of a service that is itself installed, any library counts, except those that every request passes through. A
    stack is charged to the innermost such frame: the one whose call made the library allocate.
    """
    value = next(index for index, kind in enumerate(profile.sample_types) if kind.unit == "bytes")
    for is_own in (lambda frame: _is_own(frame, source), _is_used):
        held: Counter[Frame] = Counter()
        for sample in profile.samples:
            own = next((frame for frame in _within_loop(sample.stack) if is_own(frame)), None)
            if own is not None:
                held[own] += sample.values[value]
        if held:
            frame, size = held.most_common(1)[0]
            return HeldLine(frame, size, size / max(1, profile.total(value)))
    return None


def own_first(paths: Sequence[str], profile: Profile, source: str) -> list[str]:
    """Reference paths, those through the app's own modules and functions before those through libraries only.

    A fix can change an owner in the app; one in a library has often been there from the start.
    """
    own = own_names(profile, source)
    return sorted(paths, key=lambda path: not leads_to_own(path, own))


def leads_to_own(path: str, own: frozenset[str]) -> bool:
    """Whether a path has one of the module or file names in `own`; a module's name may be qualified by its packages."""
    words = re.findall(r"[\w.]+", path)
    return any(word in own or word.rpartition(".")[2] in own for word in words)


def own_names(profile: Profile, source: str) -> frozenset[str]:
    """The names of the app's own modules and files that are on any stack."""
    files = {
        PurePosixPath(frame.file) for sample in profile.samples for frame in sample.stack if _is_own(frame, source)
    }
    return frozenset(name for file in files for name in (file.stem, file.name))


def _is_own(frame: Frame, source: str) -> bool:
    return source in frame.file and not _LIBRARY.search(frame.file)


def _within_loop(stack: Sequence[Frame]) -> Sequence[Frame]:
    """The frames within the event loop, innermost first, without those that started it, which are on every stack."""
    loop = next((place for place, frame in enumerate(stack) if _LOOP.search(frame.file)), len(stack))
    return stack[:loop]


def _is_used(frame: Frame) -> bool:
    installed = _LIBRARY.search(frame.file)
    return installed is not None and (installed["package"] or "asyncio") not in _CARRIERS
