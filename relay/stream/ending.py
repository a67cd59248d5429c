"""The facts of a stream that has ended, and its line in the log. The stream's spans are made from the same facts.

The law of this file: numbers and fixed words. Of what a caller or an upstream wrote, only the `message` of an Ending may hold
any: it is the error's message as the client reads it, and only the log shows it.
"""

from __future__ import annotations

import logging
import time
from operator import attrgetter
from typing import Any, Final, NamedTuple

from diagnostics import StreamRecord

from ..errors import ApiError
from ..protocol.facts import Facts

__all__ = ["FAILED", "Ending", "TraceIds", "log_ending"]

log = logging.getLogger("relay.stream")

# Outcomes where the service or its upstream failed. A client that leaves or does not read is neither failure nor success.
FAILED: Final = frozenset({"upstream_error", "timeout"})
# Outcomes that the upstream or the client chose; with all others an ending has an `error_type`.
UNTROUBLED: Final = frozenset({"completed", "client_disconnected"})

# A bound, since some messages quote the upstream (its content type).
MAX_MESSAGE_CHARACTERS: Final = 256

# The counts of tokens that an upstream may tell.
COUNTS: Final = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")

_counts: Final = attrgetter(*COUNTS)

LEVELS: Final = dict.fromkeys(FAILED, logging.WARNING)


class TraceIds(NamedTuple):
    """The trace and span of a log line, in W3C Trace Context's hexadecimal; `sampled`: the trace is recorded."""

    trace_id: str
    span_id: str
    sampled: bool = True


class Ending(NamedTuple):
    """Times in seconds, sizes in bytes; None is unknown. An answer that does not stream has an outcome and tokens only.

    error_type       a fixed word for the error, None where there was none
    message          the error's sentence for the client
    first_event      from the request to the first event sent
    blocked          time spent waiting for the client
    high_water       the most bytes that the application held for the stream at once
    cached_tokens, cache_write_tokens   those of the input that the upstream had in its prompt cache, and put there
    reasoning_tokens those of the output that were spent on reasoning
    mean_gap         the mean time between two events of this stream
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
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    mean_gap: float | None = None

    @classmethod
    def of(
        cls,
        outcome: str,
        *,
        record: StreamRecord | None = None,
        facts: Facts | None = None,
        error: ApiError | None = None,
    ) -> Ending:
        fields: dict[str, Any] = {} if record is None else _numbers(record, time.monotonic())
        if outcome not in UNTROUBLED:
            fields["error_type"] = error.code if error else outcome
        if error is not None:
            fields |= {"message": error.message[:MAX_MESSAGE_CHARACTERS], "status": error.status}
        if facts is not None:
            fields |= zip(COUNTS, _counts(facts), strict=True)
        return cls(outcome, **fields)

    @property
    def of_stream(self) -> bool:
        """Whether it is a stream's end; else that of an answer that does not stream."""
        return self.route is not None

    @property
    def failed(self) -> bool:
        return self.outcome in FAILED

    def fields(self) -> dict[str, Any]:
        """The fields of the log line, with units in their names; unknown ones are left out."""
        fields = {
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
        return {name: value for name, value in fields.items() if value is not None}


def log_ending(ending: Ending, ids: TraceIds | None) -> None:
    """Log the one line that each stream gets."""
    level = LEVELS.get(ending.outcome, logging.INFO)
    if log.isEnabledFor(level):
        fields = ending.fields()
        if ids is not None:
            fields |= {"trace_id": ids.trace_id, "span_id": ids.span_id}
        log.log(level, "stream ended", extra={"fields": fields, "trace_ids": ids})


def _numbers(record: StreamRecord, now: float) -> dict[str, Any]:
    first, last, events = record.first_event_at, record.last_event_at, record.events_out
    numbers: dict[str, Any] = {
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
        numbers["first_event"] = first - record.opened_at
        if last is not None and events > 1:
            numbers["mean_gap"] = (last - first) / (events - 1)
    return numbers


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
