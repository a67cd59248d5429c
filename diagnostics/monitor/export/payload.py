"""What one push consists of, and the two things that a protocol knows: how a profile is written, and what an answer says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ...analysis.profile import Profile

__all__ = ["Payload", "Source", "Wire"]


@dataclass(frozen=True, slots=True)
class Source:
    """Whose profile it is.

    name   of the service
    host   of the machine, or the container
    worker number of the process within the service, as everywhere in the monitor
    pid    as the process sees itself
    """

    name: str
    host: str
    worker: str
    pid: int


@dataclass(frozen=True, slots=True)
class Payload:
    """One profile of one worker, ready to be posted. `query` is added to the address of the receiver."""

    worker: str
    body: bytes
    content_type: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


class Wire(Protocol):
    """How profiles are written for a kind of receiver."""

    def payload(self, profile: Profile, source: Source, seconds: float) -> Payload:
        """`profile`, taken by `source` every so many seconds."""

    def objection(self, answer: bytes) -> str | None:
        """What the body of a 200 says against the profile; None where it was taken as it is."""
