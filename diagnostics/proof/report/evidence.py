"""Which line of the app holds the memory: the answer that a profile gives to a person."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ...analysis.profile import Frame, Profile

__all__ = ["HeldLine", "top_line"]


@dataclass(frozen=True, slots=True)
class HeldLine:
    """A line of the app, the bytes that were allocated under it and are still held, and their share of all held bytes."""

    frame: Frame
    bytes: int
    share: float

    def __str__(self) -> str:
        return f"{self.frame.file}:{self.frame.line} {self.frame.function}"


def top_line(profile: Profile, source: str) -> HeldLine | None:
    """The line in files whose path contains `source` under which most bytes are held; None where there is no such line.

    A stack is charged to the innermost of the app's own frames: the one that made the library allocate.
    """
    value = next(index for index, kind in enumerate(profile.sample_types) if kind.unit == "bytes")
    held: Counter[Frame] = Counter()
    for sample in profile.samples:
        own = next((frame for frame in sample.stack if source in frame.file), None)
        if own is not None:
            held[own] += sample.values[value]
    if not held:
        return None
    frame, size = held.most_common(1)[0]
    return HeldLine(frame, size, size / max(1, profile.total(value)))
