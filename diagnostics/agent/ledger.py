"""The stream ledger: one record for each open stream, totals for each route.

The law of this file: the hot path only adds numbers. A record is opened, counted on and closed by one event loop; the
agent's thread reads it at any time and takes no lock, so what it reads may be one event old. When a record is closed its
numbers are folded into its route's totals and it is forgotten: the ledger's memory follows open streams, never finished
ones, and the number of routes is capped.

Times are `time.monotonic()` seconds, sizes are bytes of body (without HTTP framing).
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final

from .histogram import BYTES, GAP_SECONDS, LATENCY_SECONDS, STREAM_SECONDS, Histogram

__all__ = ["OUTCOMES", "StreamLedger", "StreamRecord"]

OUTCOMES: Final = (
    "completed",
    "client_disconnected",
    "slow_client",
    "upstream_error",
    "timeout",
    "rejected",
    "shutdown",
)

# A service has a few dozen routes. More than this many names means that something else than a route is used as one, and
# every name costs a row of histograms here and a dozen time series in Prometheus.
MAX_ROUTES = 100
# A send that took less than this did not wait for the client, it only worked.
SHORTEST_WAIT_SECONDS: Final = 0.001
OTHER_ROUTE = "(other)"

# The record of the request that this context serves, set by the middleware, so that `ledger.stream()` inside a handler
# adds to the record that the middleware counts on, instead of making a second one for the same stream.
current_record: ContextVar[StreamRecord | None] = ContextVar("diagnostics_stream", default=None)


class RouteTotals:
    """What one route's streams have done since the start, open ones included as far as they are counted at once."""

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
        self.gaps = Histogram(GAP_SECONDS)
        self.durations = Histogram(STREAM_SECONDS)
        self.high_waters = Histogram(BYTES)
        self.upstream_closes = Histogram(LATENCY_SECONDS)


class StreamRecord:
    """One stream, from the moment someone wants it to the moment everything it opened is closed.

    `received`, `sent`, `hold` and `release` are the hot path. `buffered_bytes` is what the application holds for this
    stream and has not yet handed to the server.
    """

    __slots__ = (
        "_blocked_since",
        "_clock",
        "_ledger",
        "_totals",
        "backpressure_seconds",
        "buffered_bytes",
        "buffered_high_water",
        "bytes_in",
        "bytes_out",
        "claimed",
        "closed_at",
        "disconnected_at",
        "events_in",
        "events_out",
        "first_event_at",
        "id",
        "last_event_at",
        "opened_at",
        "outcome",
        "task",
        "trace_id",
    )

    def __init__(self, ledger: StreamLedger, totals: RouteTotals, record_id: int, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._totals = totals
        self._clock = clock
        self.id = record_id
        self.opened_at = clock()
        self.closed_at: float | None = None
        self.first_event_at: float | None = None
        self.last_event_at: float | None = None
        self.disconnected_at: float | None = None
        self._blocked_since: float | None = None
        self.outcome: str | None = None
        self.trace_id: str | None = None
        # The asyncio task that serves the stream, as a weak reference: a record never keeps a task alive.
        self.task: weakref.ref[Any] | None = None
        self.claimed = False
        self.bytes_in = self.bytes_out = self.events_in = self.events_out = 0
        self.buffered_bytes = self.buffered_high_water = 0
        self.backpressure_seconds = 0.0

    # the hot path

    def received(self, nbytes: int, events: int = 0) -> None:
        """Count what came from upstream."""
        self.bytes_in += nbytes
        self.events_in += events

    def sent(self, nbytes: int, events: int = 0) -> None:
        """Count what the server took for the client; the first event and the gaps between events are timed here."""
        self.bytes_out += nbytes
        if events:
            now = self._clock()
            last = self.last_event_at
            if last is None:
                self.first_event_at = now
                self._totals.first_events.observe(now - self.opened_at, self.trace_id)
            else:
                self._totals.gaps.observe(now - last)
            self.last_event_at = now
            self.events_out += events

    def hold(self, nbytes: int) -> None:
        """The application now buffers `nbytes` more for this stream."""
        held = self.buffered_bytes + nbytes
        self.buffered_bytes = held
        if held > self.buffered_high_water:
            self.buffered_high_water = held

    def release(self, nbytes: int) -> None:
        """The application has handed on or dropped `nbytes` that it buffered."""
        self.buffered_bytes -= nbytes

    def waits(self) -> None:
        """The stream is about to hand bytes to its client and may have to wait."""
        self._blocked_since = self._clock()

    def goes_on(self) -> None:
        """The bytes were taken."""
        since = self._blocked_since
        if since is not None:
            waited = self._clock() - since
            if waited > SHORTEST_WAIT_SECONDS:
                self.backpressure_seconds += waited
            self._blocked_since = None

    def waited(self, now: float) -> float:
        """Seconds spent waiting for the client until `now`, the present wait included: it may be the only one, and long."""
        total, since = self.backpressure_seconds, self._blocked_since
        if since is None or now - since <= SHORTEST_WAIT_SECONDS:  # as `goes_on` counts, or the total could fall again
            return total
        return total + now - since

    # the life cycle

    @property
    def route(self) -> str:
        return self._totals.name

    @property
    def task_id(self) -> int | None:
        """id() of the task that serves it, by which its connection is found; None where there is none any more."""
        task = self.task() if self.task is not None else None
        return None if task is None else id(task)

    @property
    def is_open(self) -> bool:
        return self.id in self._ledger.records

    @property
    def state(self) -> str:
        """opening (nothing sent yet), streaming, blocked (waiting for its client), disconnected, or closed."""
        if self.closed_at is not None:
            return "closed"
        if self.disconnected_at is not None:
            return "disconnected"
        since = self._blocked_since
        if since is not None and self._clock() - since > SHORTEST_WAIT_SECONDS:
            return "blocked"
        return "opening" if self.first_event_at is None else "streaming"

    def dropped(self, events: int, policy: str) -> None:
        """Count events that an overflow policy threw away."""
        self._totals.dropped_events[policy] = self._totals.dropped_events.get(policy, 0) + events

    def disconnected(self) -> None:
        """The client is known to be gone."""
        if self.disconnected_at is None:
            self.disconnected_at = self._clock()

    def upstream_closed(self) -> None:
        """The upstream of this stream is closed; if the client left before, the time between is observed."""
        if self.disconnected_at is not None:
            self._totals.upstream_closes.observe(self._clock() - self.disconnected_at, self.trace_id)

    def ends(self, outcome: str) -> None:
        """Name the outcome; the first one named stays, since later ones are its consequences."""
        if outcome not in OUTCOMES:
            raise ValueError(f"unknown outcome {outcome!r}, one of {', '.join(OUTCOMES)}")
        if self.outcome is None:
            self.outcome = outcome

    def close(self, outcome: str = "completed") -> None:
        """End the stream and fold its numbers into its route. Closing twice does nothing."""
        if self.closed_at is None:
            self.goes_on()  # whatever it was waiting for, it has waited until now
            self.ends(outcome)
            self._ledger._fold(self)


class StreamLedger:
    """All open streams of this process, and what the finished ones did, by route.

    >>> ledger = StreamLedger()
    >>> with ledger.stream("/chat") as stream:
    ...     stream.hold(4096)       # put into a queue of yours
    ...     stream.release(4096)    # taken out again
    ...     stream.sent(4096, events=1)
    >>> ledger.to_json()["routes"]["/chat"]["closed"]["completed"]
    1
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ids = itertools.count(1)
        self._lock = threading.Lock()  # opening and closing only
        self.records: dict[int, StreamRecord] = {}
        self.routes: dict[str, RouteTotals] = {}
        self.rejected: dict[str, int] = {}
        self.budget_bytes = 0
        self._unrouted = RouteTotals(OTHER_ROUTE)

    # for the application

    @contextmanager
    def stream(self, route: str) -> Iterator[StreamRecord]:
        """A record for as long as the block runs; within a request that the middleware counts, that request's record.

        An exception ends it as `upstream_error`, a cancellation as `client_disconnected` or `shutdown`, unless the block
        named its outcome first with `record.ends(...)`.
        """
        with _Ending(self.adopt(route) or self.open(route)) as record:
            yield record

    def adopt(self, route: str) -> StreamRecord | None:
        """The record of the request being served, opened under `route`; None outside of a request."""
        record = current_record.get()
        if record is None or record.claimed or record.closed_at is not None or record._ledger is not self:
            return None
        record.claimed = True
        record._totals = self.totals(route)
        self.enter(record)
        return record

    def open(self, route: str) -> StreamRecord:
        """A new open record; the caller closes it."""
        record = self.prepare()
        record._totals = self.totals(route)
        self.enter(record)
        return record

    def reject(self, reason: str) -> None:
        """Count a stream that was not let in. `reason` is one of a few fixed words."""
        with self._lock:
            self.rejected[reason] = self.rejected.get(reason, 0) + 1

    # for the middleware

    def prepare(self) -> StreamRecord:
        """A record that is timed from now on, and not yet an open stream of any route."""
        record = StreamRecord(self, self._unrouted, next(self._ids), self._clock)
        record.task = _serving_task()
        return record

    def enter(self, record: StreamRecord) -> None:
        with self._lock:
            self.records[record.id] = record

    def move(self, record: StreamRecord, route: str) -> None:
        """Charge `record` to another route; only before anything was sent on it."""
        record._totals = self.totals(route)

    def totals(self, route: str) -> RouteTotals:
        found = self.routes.get(route)
        if found is None:
            with self._lock:
                if len(self.routes) >= MAX_ROUTES:
                    route = OTHER_ROUTE
                found = self.routes.setdefault(route, RouteTotals(route))
        return found

    def _fold(self, record: StreamRecord) -> None:
        with self._lock:
            record.closed_at = self._clock()
            if self.records.pop(record.id, None) is None:
                return
            totals = record._totals
            totals.closed[record.outcome or "completed"] += 1
            totals.bytes_in += record.bytes_in
            totals.bytes_out += record.bytes_out
            totals.events_in += record.events_in
            totals.events_out += record.events_out
            totals.backpressure_seconds += record.backpressure_seconds
            totals.durations.observe(record.closed_at - record.opened_at, record.trace_id)
            totals.high_waters.observe(record.buffered_high_water, record.trace_id)

    # for the agent

    def summary(self) -> dict[str, int]:
        """The few numbers that are recorded every second; totals count from the start and hold open streams' events."""
        with self._lock:
            records = list(self.records.values())
            finished = sum(sum(route.closed.values()) for route in self.routes.values())
        return {
            "open": len(records),
            "buffered_bytes": sum(record.buffered_bytes for record in records),
            "events": self.events_out(),
            "finished": finished,
        }

    def events_out(self) -> int:
        """Events sent to clients since the start, on streams open and closed; cheap enough to be asked every second."""
        with self._lock:
            closed = sum(totals.events_out for totals in self.routes.values())
            return closed + sum(record.events_out for record in self.records.values())

    def routes_by_task(self) -> dict[int, str]:
        """The route of each open stream, by the id of the task that serves it."""
        with self._lock:
            records = list(self.records.values())
        return {record.task_id: record.route for record in records if record.task_id is not None}

    def start_anew(self) -> None:
        """In a forked child: the parent's streams and totals are the parent's, and its lock may be held for ever."""
        self._lock = threading.Lock()
        self.records, self.routes, self.rejected = {}, {}, {}

    def to_json(self, top: int = 20) -> dict[str, Any]:
        """Totals by route with open streams added in, and the `top` open streams that hold the most bytes."""
        with self._lock:
            records = list(self.records.values())
            routes = {name: _route_json(totals) for name, totals in self.routes.items()}
        largest = 0
        now = self._clock()
        for record in records:
            row = routes.get(record.route)
            if row is None:  # the route was added since
                row = routes[record.route] = _route_json(record._totals)
            row["open"] += 1
            row["buffered_bytes"] += record.buffered_bytes
            row["bytes_in"] += record.bytes_in
            row["bytes_out"] += record.bytes_out
            row["events_in"] += record.events_in
            row["events_out"] += record.events_out
            row["backpressure_seconds"] += record.waited(now)
            largest = max(largest, record.buffered_bytes)
        records.sort(key=lambda record: (record.buffered_bytes, -record.id), reverse=True)
        return {
            "open": len(records),
            "buffered_bytes": sum(row["buffered_bytes"] for row in routes.values()),
            "buffered_bytes_max": largest,
            "budget_bytes": self.budget_bytes,
            "rejected": dict(self.rejected),
            "routes": routes,
            "top": [_record_json(record, now) for record in records[:top]],
        }


def _serving_task() -> weakref.ref[Any] | None:
    """The task that runs now; None outside of an event loop. A service without asyncio does not get it imported."""
    asyncio = sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio else None
    task = asyncio.current_task(loop) if asyncio and loop else None
    return weakref.ref(task) if task is not None else None


class _Ending:
    """Closes a record that the block opened; only names the outcome of one that the middleware will close."""

    def __init__(self, record: StreamRecord) -> None:
        self._record = record

    def __enter__(self) -> StreamRecord:
        return self._record

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        record = self._record
        if kind is not None:
            record.ends(outcome_of(record, kind))
        if not record.claimed:
            record.close()


def outcome_of(record: StreamRecord, kind: type[BaseException]) -> str:
    """The outcome of a stream that ended with an exception of this kind."""
    if record.disconnected_at is not None:
        return "client_disconnected"
    if issubclass(kind, TimeoutError):
        return "timeout"
    if issubclass(kind, Exception):
        return "upstream_error"
    # Cancelled or closed from outside: a generator is closed when its client is gone, a task when the service stops.
    return "client_disconnected" if issubclass(kind, GeneratorExit) else "shutdown"


def _route_json(totals: RouteTotals) -> dict[str, Any]:
    return {
        "open": 0,
        "buffered_bytes": 0,
        "closed": dict(totals.closed),
        "bytes_in": totals.bytes_in,
        "bytes_out": totals.bytes_out,
        "events_in": totals.events_in,
        "events_out": totals.events_out,
        "backpressure_seconds": totals.backpressure_seconds,
        "dropped_events": dict(totals.dropped_events),
        "time_to_first_event": totals.first_events.to_json(),
        "inter_event": totals.gaps.to_json(),
        "duration": totals.durations.to_json(),
        "buffer_high_water": totals.high_waters.to_json(),
        "disconnect_to_upstream_close": totals.upstream_closes.to_json(),
    }


def _record_json(record: StreamRecord, now: float) -> dict[str, Any]:
    return {
        "id": record.id,
        "route": record.route,
        "state": record.state,
        "age_seconds": now - record.opened_at,
        "disconnected_seconds": None if record.disconnected_at is None else now - record.disconnected_at,
        "buffered_bytes": record.buffered_bytes,
        "buffered_high_water": record.buffered_high_water,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "events_in": record.events_in,
        "events_out": record.events_out,
        "backpressure_seconds": record.waited(now),
        "trace_id": record.trace_id,
        "task": record.task_id,
    }
