"""Which line of the app holds the memory: the answer that a profile gives to a person."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...analysis.frames import LIBRARY, is_used_library, within_loop
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
    """The line of the app's own under which most bytes are held; None where no stack has one.

    The app's own are the files whose path contains `source`, but for libraries that are installed below it. Where nothing is
    held under those, as of a service that is installed itself, it is any library but those that carry every request. A stack is
    charged to the innermost such frame: the one that made the library allocate.
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
    """Ways by which objects are held, those through the app's own modules and functions before those through libraries only.

    An owner that the user wrote is what a fix can change; a library's is as often one that has always been there.
    """
    own = own_names(profile, source)
    return sorted(paths, key=lambda path: not leads_to_own(path, own))


def leads_to_own(path: str, own: frozenset[str]) -> bool:
    """Whether a way goes through one of the modules or files named `own`; a module's name may have its packages before it."""
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
