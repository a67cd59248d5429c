"""The metric registry: the only file with metric names, and where the value of each is found in a worker's readings.

A label's value is a worker's number, a route, an outcome or another word of a fixed list: the number of series depends on the
service's code, never on its traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from ...analysis.verdict.causes import CAUSES
from ..captures.counts import CaptureCounts
from ..egress.counts import EgressCounts
from ..recording.outlook import Outlook
from ..workers.processes import Children
from ..workers.targets import Snapshot

__all__ = ["METRICS", "Scraped", "Spec"]


@dataclass(frozen=True, kw_only=True)
class Scraped(Snapshot):
    """A worker's snapshot with the monitor's own knowledge of it, for one scrape.

    outlook   trends computed from its recording
    firings   (rule, outcome) -> count
    actions   (rule, action, outcome) -> count
    captures  counts of its captures by outcome
    pushes    outcome -> count of its profiles that were to be pushed
    children  sums over its child processes that are no workers
    verdict   the verdict's word
    egress    counts of its uploads; None where nothing is sent anywhere
    restarts, oom_kills   how often its process was replaced, and killed by the OOM killer, since the monitor began
    """

    outlook: Outlook | None
    firings: dict[tuple[str, str], int]
    actions: dict[tuple[str, str, str], int]
    captures: CaptureCounts
    pushes: Mapping[str, int]
    children: Children | None
    verdict: str
    restarts: int
    oom_kills: int
    egress: EgressCounts | None = None

    @classmethod
    def of(cls, snapshot: Snapshot, **more: Any) -> Scraped:
        """`snapshot` with the further fields in `more`."""
        return cls(**{each.name: getattr(snapshot, each.name) for each in fields(snapshot)}, **more)


_BOUNDS = ("low", "mid", "high")

Row = tuple[tuple[str, ...], Any]
Rows = Callable[[Scraped], Iterable[Row]]


@dataclass(frozen=True)
class Spec:
    """One metric: `rows` yields (label values, value) for one worker; a histogram's value is its JSON."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...]
    rows: Rows


def _ledger(key: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        ledger = _ledger_of(snapshot)
        if ledger:
            yield (), ledger[key]

    return rows


def _by_route(key: str, *fixed: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        for route, totals in _routes(snapshot):
            yield (route, *fixed), totals[key]

    return rows


def _open_streams(snapshot: Scraped) -> Iterator[Row]:
    """Open streams from the ledger; without one, the server's open responses."""
    if _ledger_of(snapshot):
        yield from _by_route("open")(snapshot)
        return
    for route, row in snapshot.connections.get("routes", {}).items():
        if row["open"] is not None:
            yield (route,), row["open"]


def _buffered(snapshot: Scraped) -> Iterator[Row]:
    yield from _by_route("buffered_bytes", "app")(snapshot)
    for route, row in snapshot.connections.get("routes", {}).items():
        for layer in ("transport", "kernel"):
            if row[f"{layer}_bytes"] is not None:
                yield (route, layer), row[f"{layer}_bytes"]


def _requests(snapshot: Scraped) -> Iterator[Row]:
    for part, held in (_ledger_of(snapshot).get("requests") or {}).items():
        yield (part,), held


def _kept(snapshot: Scraped) -> Iterator[Row]:
    kept = _ledger_of(snapshot).get("kept_bytes")
    if kept is not None:
        yield (), kept


def _by_direction(stem: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        for route, totals in _routes(snapshot):
            for direction in ("in", "out"):
                yield (route, direction), totals[f"{stem}_{direction}"]

    return rows


def _by_word(key: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        for route, totals in _routes(snapshot):
            for word, count in totals[key].items():
                yield (route, word), count

    return rows


def _rejected(snapshot: Scraped) -> Iterator[Row]:
    for reason, count in _ledger_of(snapshot).get("rejected", {}).items():
        yield (reason,), count


def _outbox(key: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        for destination, told in (_ledger_of(snapshot).get("outbox") or {}).items():
            yield (destination,), told[key]

    return rows


def _sent_on(snapshot: Scraped) -> Iterator[Row]:
    for destination, told in (_ledger_of(snapshot).get("outbox") or {}).items():
        for outcome, count in told["outcomes"].items():
            yield (destination, outcome), count


def _sharing(snapshot: Scraped) -> Iterator[Row]:
    sharing = _ledger_of(snapshot).get("shared_limits")
    if sharing is not None:
        yield (), sharing["up"]


def _shared_questions(snapshot: Scraped) -> Iterator[Row]:
    for outcome, count in (_ledger_of(snapshot).get("shared_limits") or {}).items():
        if outcome != "up":
            yield (outcome,), count


def _pool_segments(snapshot: Scraped) -> Iterator[Row]:
    pool = _ledger_of(snapshot).get("pool") or {}
    for state in ("used", "free"):
        if state in pool:
            yield (state,), pool[state]


def _pool_count(key: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        pool = _ledger_of(snapshot).get("pool")
        if pool:
            yield (), pool[key]

    return rows


def _breakers(snapshot: Scraped) -> Iterator[Row]:
    for number, state in enumerate(_ledger_of(snapshot).get("breakers", ())):
        yield (str(number),), int(state != "closed")


def _rss(snapshot: Scraped) -> Iterator[Row]:
    yield (), snapshot.process.rss_bytes


def _of_balance(key: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        held = (snapshot.balance or {}).get(key)
        if held is not None:
            yield (), held

    return rows


def _children(snapshot: Scraped) -> Iterator[Row]:
    if snapshot.children is not None and snapshot.children.pss is not None:
        yield (), snapshot.children.pss


def _limit(snapshot: Scraped) -> Iterator[Row]:
    if snapshot.outlook and snapshot.outlook.limit_bytes is not None:
        yield (), snapshot.outlook.limit_bytes


def _seconds_to_limit(snapshot: Scraped) -> Iterator[Row]:
    if snapshot.outlook and snapshot.outlook.seconds_to_limit is not None:
        yield (), snapshot.outlook.seconds_to_limit


def _loop_lag(snapshot: Scraped) -> Iterator[Row]:
    if snapshot.reading and snapshot.reading["loop_lag"] is not None:
        yield (), snapshot.reading["loop_lag"]


def _tasks(snapshot: Scraped) -> Iterator[Row]:
    for state, count in ((snapshot.reading or {}).get("task_states") or {}).items():
        yield (state,), count


def _collections(snapshot: Scraped) -> Iterator[Row]:
    for generation, count in enumerate((snapshot.reading or {}).get("gc", {}).get("collections", ())):
        yield (str(generation),), count


def _firings(snapshot: Scraped) -> Iterator[Row]:
    yield from snapshot.firings.items()


def _actions(snapshot: Scraped) -> Iterator[Row]:
    yield from snapshot.actions.items()


def _captures(snapshot: Scraped) -> Iterator[Row]:
    yield from snapshot.captures.outcomes.items()


def _capture_seconds(snapshot: Scraped) -> Iterator[Row]:
    for kind, took in snapshot.captures.seconds.items():
        yield (kind,), took


def _pushes(snapshot: Scraped) -> Iterator[Row]:
    for outcome, count in snapshot.pushes.items():
        yield (outcome,), count


def _artifact_bytes(snapshot: Scraped) -> Iterator[Row]:
    yield (), snapshot.captures.artifact_bytes


def _egress_uploads(snapshot: Scraped) -> Iterator[Row]:
    if snapshot.egress is not None:
        for outcome, count in snapshot.egress.ended.items():
            yield (outcome,), count


def _of_egress(key: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        if snapshot.egress is not None:
            yield (), getattr(snapshot.egress, key)

    return rows


def _balance(snapshot: Scraped) -> Iterator[Row]:
    for part, held in (snapshot.balance or {}).get("parts", {}).items():
        if held is not None:  # unknown is not 0
            yield (part,), held


def _verdict(snapshot: Scraped) -> Iterator[Row]:
    # A row for every cause, so that an alert on one resolves.
    for cause in CAUSES:
        yield (cause,), int(cause == snapshot.verdict)


def _growth(snapshot: Scraped) -> Iterator[Row]:
    """Bytes an hour of in-use memory, or of RSS where in-use memory is unknown."""
    drift = snapshot.outlook.memory if snapshot.outlook else None
    if drift is not None:
        for bound, slope in zip(_BOUNDS, (drift.low, drift.slope, drift.high), strict=True):
            yield (bound,), slope * 3600


def _growth_per_stream(snapshot: Scraped) -> Iterator[Row]:
    left = snapshot.outlook.per_stream if snapshot.outlook else None
    for bound, each in zip(_BOUNDS, left or (), strict=False):
        yield (bound,), each


def _restarts(snapshot: Scraped) -> Iterator[Row]:
    yield (), snapshot.restarts


def _oom_kills(snapshot: Scraped) -> Iterator[Row]:
    yield (), snapshot.oom_kills


def _answers(snapshot: Scraped) -> Iterator[Row]:
    yield (), int(snapshot.state == "answering")


def _ledger_of(snapshot: Scraped) -> Mapping[str, Any]:
    return (snapshot.reading or {}).get("ledger") or {}


def _routes(snapshot: Scraped) -> Iterable[tuple[str, Mapping[str, Any]]]:
    routes: Mapping[str, Mapping[str, Any]] = _ledger_of(snapshot).get("routes", {})
    return routes.items()


METRICS: tuple[Spec, ...] = (
    Spec("stream_open_connections", "gauge", "Streams open now.", ("route",), _open_streams),
    Spec(
        "stream_buffered_bytes", "gauge", "Bytes held for open streams, by the layer that holds them.",
        ("route", "layer"), _buffered,
    ),
    Spec("stream_buffered_bytes_max", "gauge", "Bytes held for the largest single stream now.", (), _ledger("buffered_bytes_max")),
    Spec("request_buffered_bytes", "gauge", "Bytes of requests that are not answered yet: heads that are not whole, and bodies; absent where the service does not count them.", ("part",), _requests),
    Spec("stream_closed_total", "counter", "Streams that have ended, by outcome.", ("route", "outcome"), _by_word("closed")),
    Spec("stream_events_total", "counter", "Events received from upstream (in) and sent to clients (out).", ("route", "direction"), _by_direction("events")),
    Spec("stream_bytes_total", "counter", "Body bytes received from upstream (in) and sent to clients (out).", ("route", "direction"), _by_direction("bytes")),
    Spec("stream_time_to_first_event_seconds", "histogram", "From the request to the first event sent.", ("route",), _by_route("time_to_first_event")),
    Spec("stream_inter_event_seconds", "histogram", "Between two sends of events on one stream.", ("route",), _by_route("inter_event")),
    Spec("stream_duration_seconds", "histogram", "From the request to the end of the stream.", ("route",), _by_route("duration")),
    Spec("stream_backpressure_seconds_total", "counter", "Time spent waiting for clients to take bytes.", ("route",), _by_route("backpressure_seconds")),
    Spec("stream_dropped_events_total", "counter", "Events thrown away by an overflow policy.", ("route", "policy"), _by_word("dropped_events")),
    Spec("stream_buffer_high_water_bytes", "histogram", "Most bytes the application held for one stream in its life.", ("route",), _by_route("buffer_high_water")),
    Spec("stream_disconnect_to_upstream_close_seconds", "histogram", "From the client's leaving to the upstream's being closed.", ("route",), _by_route("disconnect_to_upstream_close")),
    Spec("stream_budget_bytes", "gauge", "Bytes that all streams together may hold; 0: no budget.", (), _ledger("budget_bytes")),
    Spec("stream_kept_bytes", "gauge", "Bytes of streams' events that are kept for clients that come back; absent where none are kept.", (), _kept),
    Spec("stream_rejected_total", "counter", "Streams that were not let in, by reason.", ("reason",), _rejected),
    Spec("limits_shared_up", "gauge", "1 while limits are shared with the other replicas, 0 while each goes by its own, since the store does not answer; absent where they are not to be shared.", (), _sharing),
    Spec("limits_shared_questions_total", "counter", "Questions for shared limits: answered, failed, or not asked while the store was away.", ("outcome",), _shared_questions),
    Spec("events_out_total", "counter", "Events that tell of ended streams, by where they were to go and what became of them: delivered, or why they were lost.", ("destination", "outcome"), _sent_on),
    Spec("events_out_waiting", "gauge", "Events that wait to be delivered.", ("destination",), _outbox("waiting")),
    Spec("events_out_waiting_bytes", "gauge", "Bytes held for them.", ("destination",), _outbox("bytes")),
    Spec("buffer_pool_segments", "gauge", "Segments of the buffer pool: lent out (used), and kept for the next stream (free).", ("state",), _pool_segments),
    Spec("buffer_pool_hits_total", "counter", "Segments taken from those that the pool had kept.", (), _pool_count("hits")),
    Spec("buffer_pool_misses_total", "counter", "Segments that had to be allocated, since the pool had none.", (), _pool_count("misses")),
    Spec("stream_upstream_breaker_open", "gauge", "1 while an upstream is left alone by its circuit breaker, or tried again; 0 is the first, others are fallbacks.", ("upstream",), _breakers),
    Spec("memory_rss_bytes", "gauge", "Resident memory of the worker, as the kernel counts it.", (), _rss),
    Spec("memory_pss_bytes", "gauge", "Resident memory of the worker, a page that several processes share by its share; absent where the kernel does not tell.", (), _of_balance("pss_bytes")),
    Spec("memory_private_bytes", "gauge", "Resident memory that no other process has; absent where the kernel does not tell.", (), _of_balance("private_bytes")),
    Spec("memory_children_bytes", "gauge", "PSS of the worker's child processes that are no workers; absent where one of them is not to be read.", (), _children),
    Spec("memory_balance_bytes", "gauge", "Resident memory by what it is for; the parts are disjoint, unknown parts are absent.", ("part",), _balance),
    Spec("memory_limit_bytes", "gauge", "Memory limit of the worker's cgroup, the tightest above it; absent where there is none.", (), _limit),
    Spec("memory_seconds_to_limit", "gauge", "Until the cgroup's working set meets its limit at the present slope; absent unless it grows.", (), _seconds_to_limit),
    Spec("event_loop_lag_seconds", "histogram", "From a call's being left with a loop to its being made, once for each reading.", (), _loop_lag),
    Spec("asyncio_tasks", "gauge", "Unfinished asyncio tasks: pending, or cancelling (told to end and not ended).", ("state",), _tasks),
    Spec("gc_collections_total", "counter", "Runs of Python's garbage collector.", ("generation",), _collections),
    Spec("diagnostics_captures_total", "counter", "Captures by how they ended: done, failed, cancelled, or refused (busy, too costly, no room).", ("kind", "outcome"), _captures),
    Spec("diagnostics_capture_seconds", "histogram", "From a capture's request until its artifacts were there.", ("kind",), _capture_seconds),
    Spec("diagnostics_artifact_bytes", "gauge", "Bytes of the captures that are kept.", (), _artifact_bytes),
    Spec("diagnostics_rule_firings_total", "counter", "Firings of the monitor's rules, by what became of their captures.", ("rule", "outcome"), _firings),
    Spec("diagnostics_profile_pushes_total", "counter", "Live heaps that were to be pushed: sent, refused by the receiver, dropped for newer ones; and attempts that were retried.", ("outcome",), _pushes),
    Spec("diagnostics_egress_uploads_total", "counter", "Captures and recordings that were to be sent to the store, by what became of them: sent, failed (out of tries), dropped (too many waited), lost (deleted before).", ("outcome",), _egress_uploads),
    Spec("diagnostics_egress_failed_tries_total", "counter", "Tries to send one that failed; each is tried again until its tries are used up.", (), _of_egress("failed_tries")),
    Spec("diagnostics_egress_bytes_total", "counter", "Bytes that the store has taken.", (), _of_egress("bytes")),
    Spec("diagnostics_egress_waiting", "gauge", "Captures and recordings that wait to be sent.", (), _of_egress("waiting")),
    Spec("diagnostics_rule_actions_total", "counter", "Actions of the monitor's rules by how they ended; suppressed: a limit kept the rule from firing.", ("rule", "action", "outcome"), _actions),
    Spec("memory_verdict", "gauge", "1 for the cause that is the verdict on this worker, 0 for all others.", ("cause",), _verdict),
    Spec("memory_growth_bytes_per_hour", "gauge", "Slope of in-use memory (of RSS where that is unknown): estimate (mid) and the ends of its 95 % interval.", ("bound",), _growth),
    Spec("memory_growth_bytes_per_stream", "gauge", "The same for each stream that finished in that time; absent where none did, or nobody counts them.", ("bound",), _growth_per_stream),
    Spec("service_restarts_total", "counter", "How often the worker's process was replaced by another, since the monitor began.", (), _restarts),
    Spec("service_oom_kills_total", "counter", "How often the kernel killed the worker's process for memory, since the monitor began.", (), _oom_kills),
    Spec("diagnostics_agent_up", "gauge", "1 where the worker's agent answers; its stream metrics are absent where it does not.", (), _answers),
)  # fmt: skip
