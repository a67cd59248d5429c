"""The stream ledger: one record for each open stream, totals for each route.

The law of this file: the hot path only adds numbers. A record is opened, counted on and closed by one event loop; the
agent's thread reads it at any time and takes no lock, so what it reads may be one event old. When a record is closed its
numbers are folded into its route's totals and it is forgotten: the ledger's memory follows open streams, never finished
ones, and the number of routes is capped.
"""

from __future__ import annotations

import heapq
import itertools
import sys
import time
import weakref
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from operator import attrgetter
from types import TracebackType
from typing import Any

from .reading_cache import rest_if_due, sliced
from .record import OUTCOMES, RouteTotals, StreamRecord, outcome_of
from .unpatched import allocate_lock

__all__ = ["OUTCOMES", "StreamLedger", "StreamRecord"]

# A service has a few dozen routes. More names than this mean that something other than a route template is used as one;
# each costs a row of histograms here and a dozen time series in Prometheus.
MAX_ROUTES = 100
OTHER_ROUTE = "(other)"

# Figures of a pool of buffer segments: segments in use, segments free, requests served by a free segment, and not.
POOL = ("used", "free", "hits", "misses")

# The columns that an open stream adds to its route's row.
_COLUMNS = tuple(
    (name, attrgetter(name))
    for name in ("buffered_bytes", "bytes_in", "bytes_out", "events_in", "events_out", "backpressure_seconds")
)
_BUFFERED, _EVENTS_OUT = attrgetter("buffered_bytes"), attrgetter("events_out")
_DISCONNECTED = attrgetter("disconnected_at")
# A client that left is noticed, and its upstream closed, within a moment: a stream that is open so long after it is abandoned.
ABANDONED_SECONDS = 5.0
_TOTALS = attrgetter("totals")

# The record of the request that this context serves, set by the middleware, so that `ledger.stream()` inside a handler
# adds to the record that the middleware counts on, instead of making a second one for the same stream.
current_record: ContextVar[StreamRecord | None] = ContextVar("diagnostics_stream", default=None)

# Is told of each stream, so that the live heap's samples have its route; None where there is none.
_live_heap: Any = None


class StreamLedger:
    """All open streams of this process, and totals of the finished ones, by route.

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
        self._lock = allocate_lock()  # opening and closing only
        self.records: dict[int, StreamRecord] = {}
        self.routes: dict[str, RouteTotals] = {}
        self.rejected: dict[str, int] = {}
        self.budget_bytes = 0
        # Returns (used, free, hits, misses) of the service's pool of buffer segments. None: it has no such pool.
        self.pool: Callable[[], tuple[int, int, int, int]] | None = None
        # Returns bytes of requests that are not answered yet, by part (heads, bodies). None: they are not counted.
        self.requests: Callable[[], dict[str, int]] | None = None
        # Returns bytes of streams' events that are kept for clients that come back. None: none are.
        self.kept: Callable[[], int] | None = None
        # Returns, by destination of the events that tell of ended streams: `waiting` events, the `bytes` held for them, and
        # `outcomes`, all events so far by what became of them. None: no such events are sent.
        self.outbox: Callable[[], dict[str, dict[str, Any]]] | None = None
        # Returns, where limits are shared with other processes: `up`, 1 while the shared store answers, and how many questions
        # it `answered`, `failed`, or were not asked while it was known to be `away`. None: limits are not shared.
        self.shared_limits: Callable[[], dict[str, int]] | None = None
        # Returns each upstream's circuit breaker state (closed, open, half_open), in the upstreams' order.
        self.breakers: Callable[[], Sequence[str]] = tuple
        self._unrouted = RouteTotals(OTHER_ROUTE)

    # for the application

    def stream(self, route: str, *, since: float | None = None) -> AbstractContextManager[StreamRecord]:
        """A record for as long as the block runs; within a request that the middleware counts, that request's record.

        since   when the request arrived (`time.monotonic()` seconds), for a request that the middleware does not count;
                default: now
        An exception closes the record as `upstream_error`, a cancellation as `client_disconnected` or `shutdown`, unless
        the block named the outcome first with `record.ends(...)`.
        """
        return _Streaming(self, route, since)

    def adopt(self, route: str) -> StreamRecord | None:
        """Open the current request's record under `route`; None outside of a request, or where it was answered already.

        A request's context is inherited by all tasks that it starts: by tasks that outlive it, and by the next request on
        its connection, which some servers begin while they send the end of this one.
        """
        record = current_record.get()
        if record is None or record.claimed or record.answered or record.closed_at is not None:
            return None
        if record.ledger is not self:
            return None
        record.claimed = True
        record.block = _serving_task()
        record.totals = self.totals(route)
        self.enter(record)
        return record

    def open(self, route: str, since: float | None = None) -> StreamRecord:
        """A new open record; the caller closes it. `since` is as for `stream`."""
        record = self.prepare()
        if since is not None:
            record.opened_at = since
        record.totals = self.totals(route)
        self.enter(record)
        return record

    def reject(self, reason: str) -> None:
        """Count a stream that was refused. `reason` is one of a few fixed words."""
        with self._lock:
            self.rejected[reason] = self.rejected.get(reason, 0) + 1

    # for the middleware

    def prepare(self) -> StreamRecord:
        """A record whose clock starts now, and which is not yet an open stream of any route."""
        record = StreamRecord(self, self._unrouted, next(self._ids), self._clock)
        record.task = _serving_task()
        return record

    def enter(self, record: StreamRecord) -> None:
        with self._lock:
            self.records[record.id] = record
        if _live_heap is not None:
            _live_heap.opened(record, record.totals.name)

    def move(self, record: StreamRecord, route: str) -> None:
        """Charge `record` to another route; only before anything was sent on it."""
        record.totals = self.totals(route)
        if _live_heap is not None and record.is_open:
            _live_heap.opened(record, record.totals.name)

    def totals(self, route: str) -> RouteTotals:
        totals = self.routes.get(route)
        if totals is None:
            # A lone surrogate cannot be encoded as UTF-8: one such name would make the whole /metrics page fail.
            route = route.encode(errors="replace").decode()
            with self._lock:
                if route not in self.routes and len(self.routes) >= MAX_ROUTES:
                    route = OTHER_ROUTE
                totals = self.routes.setdefault(route, RouteTotals(route))
        return totals

    def fold(self, record: StreamRecord) -> None:
        """Add the numbers of a record that has ended to its route's totals, and forget the record."""
        with self._lock:
            record.closed_at = self._clock()
            if self.records.pop(record.id, None) is None:
                return
            if _live_heap is not None:
                _live_heap.closed(record)
            totals = record.totals
            totals.closed[record.outcome or "completed"] += 1
            totals.bytes_in += record.bytes_in
            totals.bytes_out += record.bytes_out
            totals.events_in += record.events_in
            totals.events_out += record.events_out
            totals.backpressure_seconds += record.backpressure_seconds
            totals.durations.observe(record.closed_at - record.opened_at, record.trace_id)
            totals.high_waters.observe(record.buffered_high_water, record.trace_id)

    # for the agent

    def label_streams(self, know_routes: Callable[[ContextVar[Any]], Any]) -> None:
        """Tell the live heap of each stream that is opened from now on, and when it ends. `know_routes` is that of `heap`,
        of the agent that serves this process: not always the one of this copy of the package."""
        global _live_heap
        _live_heap = know_routes(current_record)

    def summary(self) -> dict[str, int]:
        """The few numbers that are recorded every second; totals are since the start and include open streams' events.

        abandoned   open streams whose client left ABANDONED_SECONDS ago
        """
        with self._lock:
            records = list(self.records.values())
            finished = sum(sum(route.closed.values()) for route in self.routes.values())
            events = sum(totals.events_out for totals in self.routes.values())
        left_before = self._clock() - ABANDONED_SECONDS
        abandoned = buffered_bytes = 0
        for part in sliced(records):
            abandoned += sum(left <= left_before for left in map(_DISCONNECTED, part) if left is not None)
            buffered_bytes += sum(map(_BUFFERED, part))
            # A stream that closes meanwhile keeps its count, and was open when the closed ones were added up.
            events += sum(map(_EVENTS_OUT, part))
        return {
            "open": len(records),
            "abandoned": abandoned,
            "buffered_bytes": buffered_bytes,
            "events": events,
            "finished": finished,
        }

    def events_out(self) -> int:
        """Events sent to clients since the start, on open and closed streams; cheap enough to be read every second."""
        with self._lock:
            closed = sum(totals.events_out for totals in self.routes.values())
            still_open: int = sum(map(_EVENTS_OUT, self.records.values()))
            return closed + still_open

    def by_task(self, known: Container[StreamRecord | None]) -> dict[int, StreamRecord]:
        """The open records that are not in `known`, by the id() of the task that serves each."""
        with self._lock:
            records = list(self.records.values())
        serving = ((record.task, record) for record in records if record not in known and record.task is not None)
        return {id(task): record for reference, record in serving if (task := reference()) is not None}

    def start_anew(self) -> None:
        """In a forked child: drop the parent's streams and totals, and its lock, which a thread of the parent may hold."""
        self._lock = allocate_lock()
        self.records, self.routes, self.rejected = {}, {}, {}

    def to_json(self, top: int = 20) -> dict[str, Any]:
        """Totals by route with open streams added in, and the `top` open streams that hold the most bytes."""
        with self._lock:
            records = list(self.records.values())
            routes = {name: totals.to_json() for name, totals in self.routes.items()}
        now = self._clock()
        buffered: list[int] = []
        for part in sliced(records):
            buffered += map(_BUFFERED, part)
            for totals, group in _by_totals(part):
                row = routes.get(totals.name)
                if row is None:  # the route was added after the rows were made
                    row = routes[totals.name] = totals.to_json()
                _add_open(row, group, now)
        most = max(buffered, default=0)
        # Mostly no stream holds anything: then the first ones will do.
        fullest = [] if most else list(range(min(top, len(buffered))))
        for places in sliced(list(range(len(buffered)))) if most else ():
            fullest = heapq.nlargest(top, [*fullest, *places], key=buffered.__getitem__)
        rows = []
        for place in fullest:
            rest_if_due()
            rows.append(records[place].to_json(now))
        rest_if_due()
        return {
            "open": len(records),
            "buffered_bytes": sum(row["buffered_bytes"] for row in routes.values()),
            "buffered_bytes_max": most,
            "budget_bytes": self.budget_bytes,
            "breakers": list(self.breakers()),
            "rejected": dict(self.rejected),
            "requests": self.requests() if self.requests is not None else None,
            "kept_bytes": self.kept() if self.kept is not None else None,
            "shared_limits": self.shared_limits() if self.shared_limits is not None else None,
            "outbox": self.outbox() if self.outbox is not None else None,
            "pool": dict(zip(POOL, self.pool(), strict=True)) if self.pool is not None else None,
            "routes": routes,
            "top": rows,
        }


def _by_totals(records: list[StreamRecord]) -> Iterable[tuple[RouteTotals, list[StreamRecord]]]:
    """The records grouped by route, without a Python loop where all have the same route, as in most services."""
    totals = list(map(_TOTALS, records))
    if totals.count(totals[0]) == len(totals):
        return ((totals[0], records),)
    groups: dict[RouteTotals, list[StreamRecord]] = {}
    for each, record in zip(totals, records, strict=True):
        groups.setdefault(each, []).append(record)
    return groups.items()


def _add_open(row: dict[str, Any], group: list[StreamRecord], now: float) -> None:
    """Add these open streams to their route's row, one column at a time, which saves a Python loop over all numbers."""
    row["open"] += len(group)
    for name, column in _COLUMNS:
        row[name] += sum(map(column, group))
    for record in group:
        if record.blocked_since is not None:  # the present wait is not in the column yet
            row["backpressure_seconds"] += record.waited(now) - record.backpressure_seconds


def _serving_task() -> weakref.ref[Any] | None:
    """A weak reference to the current asyncio task; None outside of an event loop. Never imports asyncio."""
    asyncio = sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio else None
    task = asyncio.current_task(loop) if asyncio and loop else None
    return weakref.ref(task) if task is not None else None


class _Streaming:
    """The context manager of `StreamLedger.stream`.

    At its end it closes a record that it opened itself, or whose request is over; else it only names the outcome, and the
    middleware closes the record. A class, because each open stream has one, and a generator is three times as large.
    """

    __slots__ = ("_ledger", "_record", "_route", "_since")

    def __init__(self, ledger: StreamLedger, route: str, since: float | None) -> None:
        self._ledger = ledger
        self._route = route
        self._since = since
        self._record: StreamRecord | None = None

    def __enter__(self) -> StreamRecord:
        self._record = self._ledger.adopt(self._route) or self._ledger.open(self._route, self._since)
        return self._record

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        record, self._record = self._record, None
        assert record is not None, "entered before it is left"
        if kind is not None:
            record.ends(outcome_of(record, kind))
        record.block = None
        if not record.claimed or record.outlived:
            record.close()
