"""The counters of one open stream and of a route's streams together, and the hot path that adds to them.

A record is opened, counted on and closed by one event loop; any thread may read it and takes no lock, so what it reads may
be one event old. Times are `time.monotonic()` seconds, sizes are bytes of body (without HTTP framing).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

from .histogram import BYTES, GAP_SECONDS, LATENCY_SECONDS, STREAM_SECONDS, Collected, Histogram

__all__ = ["OUTCOMES", "RouteTotals", "StreamRecord", "outcome_of"]

OUTCOMES: Final = (
    "completed",
    "client_disconnected",
    "slow_client",
    "upstream_error",
    "timeout",
    "rejected",
    "shutdown",
)

# A shorter send is CPU time, no wait for the client.
SHORTEST_WAIT_SECONDS: Final = 0.001


class RouteTotals:
    """Counters of one route's streams since the start: of closed ones, and those of open ones that are not kept in a record."""

    __slots__ = (
        "backpressure_seconds",
        "bytes_in",
        "bytes_out",
        "closed",
        "dropped_events",
        "durations",
        "events_in",
        "events_out",
        "first_events",
        "gaps",
        "high_waters",
        "name",
        "upstream_closes",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = dict.fromkeys(OUTCOMES, 0)
        self.bytes_in = self.bytes_out = self.events_in = self.events_out = 0
        self.backpressure_seconds = 0.0
        self.dropped_events: dict[str, int] = {}
        self.first_events = Histogram(LATENCY_SECONDS)
        self.gaps = Collected(GAP_SECONDS)
        self.durations = Histogram(STREAM_SECONDS)
        self.high_waters = Histogram(BYTES)
        self.upstream_closes = Histogram(LATENCY_SECONDS)

    def to_json(self) -> dict[str, Any]:
        return {
            "open": 0,
            "buffered_bytes": 0,
            "closed": dict(self.closed),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "events_in": self.events_in,
            "events_out": self.events_out,
            "backpressure_seconds": self.backpressure_seconds,
            "dropped_events": dict(self.dropped_events),
            "time_to_first_event": self.first_events.to_json(),
            "inter_event": self.gaps.to_json(),
            "duration": self.durations.to_json(),
            "buffer_high_water": self.high_waters.to_json(),
            "disconnect_to_upstream_close": self.upstream_closes.to_json(),
        }


class Ledger(Protocol):
    """The owner of records; `records` are the open ones, by id."""

    records: dict[int, StreamRecord]

    def fold(self, record: StreamRecord) -> None:
        """Remove a record that has ended from `records`, and add its numbers to its route's totals."""


class StreamRecord:
    """One stream, from its request to the moment when everything that it opened is closed.

    `received`, `sent`, `hold` and `release` are the hot path, or `relayed` alone. `buffered_bytes` are bytes that the
    application holds for this stream and has not yet handed to the server.
    """

    __slots__ = (
        "answered",
        "backpressure_seconds",
        "block",
        "blocked_since",
        "buffered_bytes",
        "buffered_high_water",
        "bytes_in",
        "bytes_out",
        "claimed",
        "clock",
        "closed_at",
        "disconnected_at",
        "dropped_events",
        "events_in",
        "events_out",
        "first_event_at",
        "id",
        "last_event_at",
        "ledger",
        "opened_at",
        "outcome",
        "outlived",
        "task",
        "totals",
        "trace_id",
    )

    def __init__(self, ledger: Ledger, totals: RouteTotals, record_id: int, clock: Callable[[], float]) -> None:
        self.ledger = ledger
        self.totals = totals
        self.clock = clock
        self.id = record_id
        self.opened_at = clock()
        self.closed_at: float | None = None
        self.first_event_at: float | None = None
        self.last_event_at: float | None = None
        self.disconnected_at: float | None = None
        self.blocked_since: float | None = None
        self.outcome: str | None = None
        self.trace_id: str | None = None
        # The asyncio task that serves the stream, as a weak reference: a record never keeps a task alive.
        self.task: weakref.ref[Any] | None = None
        # Whether a block of `ledger.stream()` has adopted this request's record; a weak reference to the block's task.
        self.claimed = False
        self.block: weakref.ref[Any] | None = None
        # The response has ended: whatever is streamed in the request's context from now on is another stream.
        self.answered = False
        # The request has ended before the block: the block will close the record.
        self.outlived = False
        self.bytes_in = self.bytes_out = self.events_in = self.events_out = 0
        self.buffered_bytes = self.buffered_high_water = self.dropped_events = 0
        self.backpressure_seconds = 0.0

    # the hot path

    def received(self, nbytes: int, events: int = 0) -> None:
        """Count body bytes and events that came from upstream."""
        self.bytes_in += nbytes
        self.events_in += events

    def sent(self, nbytes: int, events: int = 0) -> None:
        """Count body bytes and events that were handed to the server; times the first event and the gaps between events."""
        self.bytes_out += nbytes
        if events:
            now = self.clock()
            last = self.last_event_at
            if last is None:
                self.first_event_at = now
                self.totals.first_events.observe(now - self.opened_at, self.trace_id)
            else:
                self.totals.gaps.observe(now - last)
            self.last_event_at = now
            self.events_out += events

    def relayed(self, nbytes: int, events: int = 0) -> None:
        """Count bytes that came from upstream and were handed to the server in one step: as received, held, sent."""
        self.bytes_in += nbytes
        if nbytes > self.buffered_high_water:
            self.buffered_high_water = nbytes
        self.events_in += events
        self.sent(nbytes, events)

    def hold(self, nbytes: int) -> None:
        """The application buffers `nbytes` more for this stream."""
        buffered = self.buffered_bytes + nbytes
        self.buffered_bytes = buffered
        if buffered > self.buffered_high_water:
            self.buffered_high_water = buffered

    def release(self, nbytes: int) -> None:
        """The application has sent or dropped `nbytes` that it buffered."""
        self.buffered_bytes -= nbytes

    def waits(self) -> None:
        """Call before a send that may wait for the client: the wait begins now."""
        self.blocked_since = self.clock()

    def goes_on(self) -> None:
        """Call after the send: the wait has ended; it counts as backpressure above SHORTEST_WAIT_SECONDS."""
        since = self.blocked_since
        if since is not None:
            waited = self.clock() - since
            if waited > SHORTEST_WAIT_SECONDS:
                self.backpressure_seconds += waited
            self.blocked_since = None

    def waited(self, now: float) -> float:
        """Seconds spent waiting for the client until `now` (as `clock()`), the present wait included."""
        total, since = self.backpressure_seconds, self.blocked_since
        if since is None or now - since <= SHORTEST_WAIT_SECONDS:  # as `goes_on` counts, or the total could fall again
            return total
        return total + now - since

    # the life cycle

    @property
    def route(self) -> str:
        return self.totals.name

    @property
    def task_id(self) -> int | None:
        """id() of the task that serves the stream, by which its connection is found; None where that task is gone."""
        task = self.task() if self.task is not None else None
        return None if task is None else id(task)

    @property
    def is_open(self) -> bool:
        return self.id in self.ledger.records

    @property
    def outlives_request(self) -> bool:
        """Whether the block of `ledger.stream()` runs in another task than the request's own, and that task has not ended."""
        task = self.block() if self.block is not None else None
        return task is not None and not task.done() and (self.task is None or task is not self.task())

    def request_ends(self, outcome: str) -> None:
        """The request has ended: close the record, or, where the stream goes on in another task, leave that to its block."""
        if self.outlives_request:
            self.outlived = True
        else:
            self.close(outcome)

    @property
    def state(self) -> str:
        """opening (nothing sent yet), streaming, blocked (waiting for its client), disconnected, or closed."""
        if self.closed_at is not None:
            return "closed"
        if self.disconnected_at is not None:
            return "disconnected"
        since = self.blocked_since
        if since is not None and self.clock() - since > SHORTEST_WAIT_SECONDS:
            return "blocked"
        return "opening" if self.first_event_at is None else "streaming"

    def dropped(self, events: int, policy: str) -> None:
        """Count events that an overflow policy threw away."""
        self.dropped_events += events
        self.totals.dropped_events[policy] = self.totals.dropped_events.get(policy, 0) + events

    def disconnected(self) -> None:
        """The client is known to be gone."""
        if self.disconnected_at is None:
            self.disconnected_at = self.clock()

    def upstream_closed(self) -> None:
        """The upstream of this stream is closed; if the client left before, the seconds since then are observed."""
        if self.disconnected_at is not None:
            self.totals.upstream_closes.observe(self.clock() - self.disconnected_at, self.trace_id)

    def ends(self, outcome: str) -> None:
        """Set the outcome, if none is set: later outcomes are consequences of the first. Raises ValueError."""
        if outcome not in OUTCOMES:
            raise ValueError(f"unknown outcome {outcome!r}, one of {', '.join(OUTCOMES)}")
        if self.outcome is None:
            self.outcome = outcome

    def close(self, outcome: str = "completed") -> None:
        """End the stream and fold its numbers into its route. Closing twice does nothing."""
        if self.closed_at is None:
            self.goes_on()  # whatever it was waiting for, it has waited until now
            self.ends(outcome)
            self.ledger.fold(self)

    def to_json(self, now: float) -> dict[str, Any]:
        return {
            "id": self.id,
            "route": self.route,
            "state": self.state,
            "age_seconds": now - self.opened_at,
            "disconnected_seconds": None if self.disconnected_at is None else now - self.disconnected_at,
            "buffered_bytes": self.buffered_bytes,
            "buffered_high_water": self.buffered_high_water,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "events_in": self.events_in,
            "events_out": self.events_out,
            "backpressure_seconds": self.waited(now),
            "trace_id": self.trace_id,
            "task": self.task_id,
        }


def outcome_of(record: StreamRecord, kind: type[BaseException]) -> str:
    """The outcome of a stream that ended with an exception of this kind."""
    if record.disconnected_at is not None:
        return "client_disconnected"
    if issubclass(kind, TimeoutError):
        return "timeout"
    if issubclass(kind, Exception):
        return "upstream_error"
    # A generator is closed when its client is gone, a task is cancelled when the service stops.
    return "client_disconnected" if issubclass(kind, GeneratorExit) else "shutdown"
