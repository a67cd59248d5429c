"""What the clients saw, in counters and distributions: it adds up over the processes of a fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ....analysis.distribution import Distribution

__all__ = ["Tally"]

_COUNTS = ("streams", "events", "bytes", "done_seen", "sampled", "not_json", "asked_late")
_COUNTERS = ("outcomes", "errors", "content_types")
_SPREADS = ("connect", "first_event", "gaps")


@dataclass
class Tally:
    """Counts since the fleet began; times are seconds.

    streams        streams that were begun
    outcomes       how they ended: completed (by the service), left (by the client, as it should), time_up, failed
    errors         why: connect, tls, status_503, reset, cut_off (an end without the end), malformed, silent
    done_seen      completed streams whose last event was [DONE]
    sampled        events whose data was parsed as JSON; not_json: those of them that are none
    connect        from the moment that a stream was meant to begin to its connection
    first_event    from that moment to its first whole event
    gaps           between events, as they arrive; those that come in one read are 0 apart. Not of clients that dawdle
    asked_late     streams that began more than 10 ms after they were meant to, because all connections were busy
    """

    streams: int = 0
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

    @classmethod
    def merged(cls, parts: Iterable[Tally]) -> Tally:
        """All of `parts` as one."""
        whole, parts = cls(), list(parts)
        for part in parts:
            for name in _COUNTS:
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
            for name in _COUNTERS:
                getattr(whole, name).update(getattr(part, name))
        for name in _SPREADS:
            setattr(whole, name, Distribution.merged(getattr(part, name) for part in parts))
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
