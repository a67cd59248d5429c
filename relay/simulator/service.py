"""What all connections of one simulator share; only its own event loop touches it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from .requests import AnswerRequest
from .stats import Stats

__all__ = ["Service"]

# Models whose requests are counted, for faults that end after some requests.
_MAX_COUNTED_MODELS = 10_000


class OpenConnection(Protocol):
    """What the service needs of a client's connection (see http.py)."""

    def abort(self) -> None:
        """Close it at once, whatever is still to be sent."""


@dataclass(slots=True)
class Service:
    """What all connections share: the seed, the counts, the open connections. `answers` counts the answers."""

    seed: int = 0
    answers: int = 0
    stats: Stats = field(default_factory=Stats)
    connections: set[OpenConnection] = field(default_factory=set)
    requests_of: Counter[str] = field(default_factory=Counter)

    def meets_fault(self, request: AnswerRequest) -> bool:
        """Whether this request is to be answered with its fault's error status; counts the request."""
        fault = request.script.fault
        if fault is None or fault.status is None:
            return False
        if fault.times is None:
            return True
        if len(self.requests_of) >= _MAX_COUNTED_MODELS and request.model not in self.requests_of:
            self.requests_of.clear()
        self.requests_of[request.model] += 1
        return self.requests_of[request.model] <= fault.times
