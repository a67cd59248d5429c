"""The id of an event: the millisecond in which it was published, and a number within it; the same as ids of Redis Streams.

The ids of a topic only grow, across restarts as well, since they begin with the time. So a client's Last-Event-ID has the same
meaning in every process.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["NOTHING", "EventId", "next_id", "parse_id"]

# Both numbers are 64 bits in Redis; the bound keeps a peer from making int() parse a huge number.
_FORM: Final = re.compile(r"(\d{1,19})-(\d{1,19})", re.ASCII)


class EventId(NamedTuple):
    """`ms` since 1970, and a number within that millisecond.

    >>> str(EventId(1764000000000, 1)), EventId(2, 0) > EventId(1, 9)
    ('1764000000000-1', True)
    """

    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


# Before the first event.
NOTHING: Final = EventId(0, 0)


def parse_id(text: str) -> EventId | None:
    """Parse an id; None where `text` is not one.

    >>> parse_id("1764000000000-0"), parse_id("7"), parse_id("")
    (EventId(ms=1764000000000, seq=0), None, None)
    """
    match = _FORM.fullmatch(text)
    return EventId(int(match[1]), int(match[2])) if match else None


def next_id(last: EventId, now_ms: int) -> EventId:
    """An id after `last`: that of `now_ms` (since 1970), unless the clock has not moved on or went back.

    >>> next_id(EventId(5, 3), 5), next_id(EventId(5, 3), 6), next_id(EventId(5, 3), 1)
    (EventId(ms=5, seq=4), EventId(ms=6, seq=0), EventId(ms=5, seq=4))
    """
    return EventId(now_ms, 0) if now_ms > last.ms else EventId(last.ms, last.seq + 1)
