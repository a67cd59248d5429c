"""Finds the app's line that holds most memory in a profile."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...analysis.lines.frames import LIBRARY, is_used_library, within_loop
from ...analysis.profile import Frame, Profile

__all__ = ["HeldLine", "leads_to_own", "own_first", "own_names", "top_line"]


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
    for is_own in (lambda frame: _is_own(frame, source), is_used_library):
        held: Counter[Frame] = Counter()
        for sample in profile.samples:
            own = next((frame for frame in within_loop(sample.stack) if is_own(frame)), None)
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
    return source in frame.file and not LIBRARY.search(frame.file)
