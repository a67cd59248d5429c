"""The state that all connections of one simulator share. For its event loop only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from .requests import AnswerRequest
from .stats import Stats

__all__ = ["Service"]

# Models whose requests are counted, for faults of the first K requests of a name.
_MAX_COUNTED_MODELS = 10_000


class OpenConnection(Protocol):
    """A client's connection, as the service uses it (see http.py)."""

    def abort(self) -> None:
        """Drop the connection, with all unsent bytes."""


@dataclass(slots=True)
class Service:
    """The shared state: the seed of names without one, the number of answers so far, the counts, the open connections.

    requests_of   requests by model, of names with a fault for the first K requests
    """

    seed: int = 0
    answers: int = 0
    stats: Stats = field(default_factory=Stats)
    connections: set[OpenConnection] = field(default_factory=set)
    requests_of: Counter[str] = field(default_factory=Counter)

    def meets_fault(self, request: AnswerRequest) -> bool:
        """Count the request, and return whether it is to be answered with its fault's error status."""
        fault = request.script.fault
        if fault is None or fault.status is None:
            return False
        if fault.times is None:
            return True
        if len(self.requests_of) >= _MAX_COUNTED_MODELS and request.model not in self.requests_of:
            self.requests_of.clear()
        self.requests_of[request.model] += 1
        return self.requests_of[request.model] <= fault.times
