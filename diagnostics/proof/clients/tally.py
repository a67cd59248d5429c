"""What clients saw, in counters and distributions that add up over loads and processes, and the words for how streams end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from ...analysis.distribution import Distribution

__all__ = ["StreamOutcome", "Tally"]

# RFC 6585, 4 and RFC 9110, 15.6.4: come back later.
_REJECTED = (429, 503)
_COUNTS = ("streams", "connections", "events", "bytes", "done_seen", "sampled", "not_json", "asked_late")
_COUNTERS = ("outcomes", "errors", "content_types")
_SPREADS = ("connect", "first_event", "gaps")


class StreamOutcome(StrEnum):
    """How a stream ended.

    COMPLETED   the service ended it
    LEFT        the client did, as its behavior says
    TIME_UP     the end of the load did
    REJECTED    429 or 503: the service takes no more
    FAILED      for another reason, which `Tally.errors` counts
    """

    COMPLETED = "completed"
    LEFT = "left"
    TIME_UP = "time_up"
    REJECTED = "rejected"
    FAILED = "failed"

    @classmethod
    def refused(cls, status: int) -> StreamOutcome:
        """Of a stream that was answered with a status that is not 2xx."""
        return cls.REJECTED if status in _REJECTED else cls.FAILED


@dataclass
class Tally:
    """Counts since the clients began; times are seconds.

    streams        streams that were begun
    connections    connections that were opened for them
    outcomes       how they ended, by StreamOutcome
    errors         why they failed or were rejected: connect, tls, status_503, reset, cut_off (the connection ended before the
                   answer did), malformed (no HTTP), silent
    done_seen      completed streams whose last event was [DONE]
    sampled        events whose data was parsed as JSON; not_json: those of them that are none
    connect        from the moment that a stream was meant to begin to its connection; of streams for which one was opened
    first_event    from that moment to its first whole event
    gaps           between events, as they arrive; those that come in one read are 0 apart. Not of clients that dawdle
    asked_late     streams that began more than 10 ms after they were meant to, because all connections were busy
    """

    streams: int = 0
    connections: int = 0
    events: int = 0
    bytes: int = 0
    done_seen: int = 0
    sampled: int = 0
    not_json: int = 0
    asked_late: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    content_types: Counter[str] = field(default_factory=Counter)
    connect: Distribution = field(default_factory=Distribution)
    first_event: Distribution = field(default_factory=Distribution)
    gaps: Distribution = field(default_factory=Distribution)

    @property
    def ended(self) -> int:
        """Streams that are over."""
        return self.outcomes.total()

    def add(self, other: Self) -> None:
        """Count in what other clients saw."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _COUNTERS:
            getattr(self, name).update(getattr(other, name))
        for name in _SPREADS:
            setattr(self, name, Distribution.merged((getattr(self, name), getattr(other, name))))

    @classmethod
    def merged(cls, parts: Iterable[Self]) -> Self:
        """All of `parts` as one."""
        whole = cls()
        for part in parts:
            whole.add(part)
        return whole

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            **{name: dict(getattr(self, name)) for name in _COUNTERS},
            **{name: getattr(self, name).to_json() for name in _SPREADS},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tally:
        """Read what `to_json` wrote."""
        one = cls(**{name: data[name] for name in _COUNTS})
        for name in _COUNTERS:
            setattr(one, name, Counter(data[name]))
        for name in _SPREADS:
            setattr(one, name, Distribution.from_json(data[name]))
        return one
