"""The facts of a stream that has ended. The line in the log and the stream's spans are made from them, in the same words.

The law of this file: numbers and fixed words. Nothing that a caller or an upstream wrote is in an Ending but its
`message`, which is what a client is told, and which only the log shows.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any, Final

from diagnostics import StreamRecord

from ..errors import ApiError
from ..protocol.facts import Facts

__all__ = ["FAILED", "Ending", "TraceIds", "log_ending"]

log = logging.getLogger("relay.stream")

# Where the service or its upstream failed. A client that leaves or does not read is no failure of ours, yet no success.
FAILED: Final = frozenset({"upstream_error", "timeout"})
# As it was meant to end, or as its client chose to: all other endings have an `error_type`.
UNTROUBLED: Final = frozenset({"completed", "client_disconnected"})

# An upstream's content type stands in one of them.
MAX_MESSAGE_CHARACTERS: Final = 256

LEVELS: Final = dict.fromkeys(FAILED, logging.WARNING)


@dataclass(frozen=True, slots=True)
class TraceIds:
    """Where a line belongs: hexadecimal, as W3C Trace Context writes them; `sampled`: the trace is recorded."""

    trace_id: str
    span_id: str
    sampled: bool = True


@dataclass(frozen=True, slots=True)
class Ending:
    """Seconds and bytes; None where it is not known. An answer that does not stream has an outcome and its tokens only.

    error_type       one fixed word for what went wrong, None where nothing did
    message          a sentence about that
    first_event      seconds from the request to the first event sent
    blocked          seconds spent waiting for the client
    high_water       most bytes that the application held for it
    """

    outcome: str
    error_type: str | None = None
    message: str | None = None
    status: int | None = None
    route: str | None = None
    duration: float | None = None
    first_event: float | None = None
    blocked: float | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    events_in: int | None = None
    events_out: int | None = None
    high_water: int | None = None
    dropped_events: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    mean_gap: float | None = None  # seconds between two events, the mean of this stream

    @classmethod
    def of(
        cls,
        outcome: str,
        *,
        record: StreamRecord | None = None,
        facts: Facts | None = None,
        error: ApiError | None = None,
    ) -> Ending:
        known: dict[str, Any] = {}
        if outcome not in UNTROUBLED:
            known["error_type"] = error.code if error else outcome
        if error is not None:
            known |= {"message": error.message[:MAX_MESSAGE_CHARACTERS], "status": error.status}
        if record is not None:
            known |= _numbers(record, time.monotonic())
        if facts is not None:
            known |= {"input_tokens": facts.input_tokens, "output_tokens": facts.output_tokens}
        return cls(outcome, **known)

    @property
    def failed(self) -> bool:
        return self.outcome in FAILED

    def fields(self) -> dict[str, Any]:
        """For the log, with the units in the names; what is not known is left out."""
        found = {
            "route": self.route,
            "outcome": self.outcome,
            "error_type": self.error_type,
            "error": self.message,
            "duration_seconds": _rounded(self.duration),
            "first_event_seconds": _rounded(self.first_event),
            "blocked_seconds": _rounded(self.blocked),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "events_in": self.events_in,
            "events_out": self.events_out,
            "high_water_bytes": self.high_water,
            "dropped_events": self.dropped_events or None,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
        }
        return {name: value for name, value in found.items() if value is not None}


def log_ending(ending: Ending, ids: TraceIds | None) -> None:
    """The one line of a stream."""
    level = LEVELS.get(ending.outcome, logging.INFO)
    if log.isEnabledFor(level):
        fields = ending.fields()
        if ids is not None:
            fields |= {"trace_id": ids.trace_id, "span_id": ids.span_id}
        log.log(level, "stream ended", extra={"fields": fields, "trace_ids": ids})


def _numbers(record: StreamRecord, now: float) -> dict[str, Any]:
    first, last, events = record.first_event_at, record.last_event_at, record.events_out
    known: dict[str, Any] = {
        "route": record.route,
        "duration": now - record.opened_at,
        "blocked": record.waited(now),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "events_in": record.events_in,
        "events_out": events,
        "high_water": record.buffered_high_water,
        "dropped_events": record.dropped_events,
    }
    if first is not None:
        known["first_event"] = first - record.opened_at
        if last is not None and events > 1:
            known["mean_gap"] = (last - first) / (events - 1)
    return known


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
