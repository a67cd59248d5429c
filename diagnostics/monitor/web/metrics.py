"""The metric registry: the only file with metric names. Families are made from the workers' readings at each scrape
(`metric_rows.py`, `exposition.py`), followed by the families that the services registered themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from . import metric_rows as rows
from .metric_rows import Rows

__all__ = ["METRICS", "Spec"]


@dataclass(frozen=True)
class Spec:
    """One metric: `rows` yields (label values, value) for one worker; a histogram's value is its JSON."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...]
    rows: Rows


METRICS: tuple[Spec, ...] = (
    Spec("stream_open_connections", "gauge", "Streams open now.", ("route",), rows.open_streams),
    Spec(
        "stream_buffered_bytes", "gauge", "Bytes held for open streams, by the layer that holds them.",
        ("route", "layer"), rows.buffered,
    ),
    Spec("stream_buffered_bytes_max", "gauge", "Bytes held for the largest single stream now.", (), rows.ledger("buffered_bytes_max")),
    Spec("request_buffered_bytes", "gauge", "Bytes of requests that are not answered yet: heads that are not whole, and bodies; absent where the service does not count them.", ("part",), rows.requests),
    Spec("stream_closed_total", "counter", "Streams that have ended, by outcome.", ("route", "outcome"), rows.by_word("closed")),
    Spec("stream_events_total", "counter", "Events received from upstream (in) and sent to clients (out).", ("route", "direction"), rows.by_direction("events")),
    Spec("stream_bytes_total", "counter", "Body bytes received from upstream (in) and sent to clients (out).", ("route", "direction"), rows.by_direction("bytes")),
    Spec("stream_time_to_first_event_seconds", "histogram", "From the request to the first event sent.", ("route",), rows.by_route("time_to_first_event")),
    Spec("stream_inter_event_seconds", "histogram", "Between two sends of events on one stream.", ("route",), rows.by_route("inter_event")),
    Spec("stream_duration_seconds", "histogram", "From the request to the end of the stream.", ("route",), rows.by_route("duration")),
    Spec("stream_backpressure_seconds_total", "counter", "Time spent waiting for clients to take bytes.", ("route",), rows.by_route("backpressure_seconds")),
    Spec("stream_dropped_events_total", "counter", "Events thrown away by an overflow policy.", ("route", "policy"), rows.by_word("dropped_events")),
    Spec("stream_buffer_high_water_bytes", "histogram", "Most bytes the application held for one stream in its life.", ("route",), rows.by_route("buffer_high_water")),
    Spec("stream_disconnect_to_upstream_close_seconds", "histogram", "From the client's leaving to the upstream's being closed.", ("route",), rows.by_route("disconnect_to_upstream_close")),
    Spec("stream_budget_bytes", "gauge", "Bytes that all streams together may hold; 0: no budget.", (), rows.ledger("budget_bytes")),
    Spec("stream_kept_bytes", "gauge", "Bytes of streams' events that are kept for clients that come back; absent where none are kept.", (), rows.kept),
    Spec("stream_rejected_total", "counter", "Streams that were not let in, by reason.", ("reason",), rows.rejected),
    Spec("limits_shared_up", "gauge", "1 while limits are shared with the other replicas, 0 while each goes by its own, since the store does not answer; absent where they are not to be shared.", (), rows.sharing),
    Spec("limits_shared_questions_total", "counter", "Questions for shared limits: answered, failed, or not asked while the store was away.", ("outcome",), rows.shared_questions),
    Spec("events_out_total", "counter", "Events that tell of ended streams, by where they were to go and what became of them: delivered, or why they were lost.", ("destination", "outcome"), rows.sent_on),
    Spec("events_out_waiting", "gauge", "Events that wait to be delivered.", ("destination",), rows.outbox("waiting")),
    Spec("events_out_waiting_bytes", "gauge", "Bytes held for them.", ("destination",), rows.outbox("bytes")),
    Spec("buffer_pool_segments", "gauge", "Segments of the buffer pool: lent out (used), and kept for the next stream (free).", ("state",), rows.pool_segments),
    Spec("buffer_pool_hits_total", "counter", "Segments taken from those that the pool had kept.", (), rows.pool_count("hits")),
    Spec("buffer_pool_misses_total", "counter", "Segments that had to be allocated, since the pool had none.", (), rows.pool_count("misses")),
    Spec("stream_upstream_breaker_open", "gauge", "1 while an upstream is left alone by its circuit breaker, or tried again; 0 is the first, others are fallbacks.", ("upstream",), rows.breakers),
    Spec("memory_rss_bytes", "gauge", "Resident memory of the worker, as the kernel counts it.", (), rows.rss),
    Spec("memory_pss_bytes", "gauge", "Resident memory of the worker, a page that several processes share by its share; absent where the kernel does not tell.", (), rows.of_balance("pss_bytes")),
    Spec("memory_private_bytes", "gauge", "Resident memory that no other process has; absent where the kernel does not tell.", (), rows.of_balance("private_bytes")),
    Spec("memory_children_bytes", "gauge", "PSS of the worker's child processes that are no workers; absent where one of them is not to be read.", (), rows.children),
    Spec("memory_balance_bytes", "gauge", "Resident memory by what it is for; the parts are disjoint, unknown parts are absent.", ("part",), rows.balance),
    Spec("memory_limit_bytes", "gauge", "Memory limit of the worker's cgroup, the tightest above it; absent where there is none.", (), rows.limit),
    Spec("memory_seconds_to_limit", "gauge", "Until the cgroup's working set meets its limit at the present slope; absent unless it grows.", (), rows.seconds_to_limit),
    Spec("event_loop_lag_seconds", "histogram", "From a call's being left with a loop to its being made, once for each reading.", (), rows.loop_lag),
    Spec("asyncio_tasks", "gauge", "Unfinished asyncio tasks: pending, or cancelling (told to end and not ended).", ("state",), rows.tasks),
    Spec("gc_collections_total", "counter", "Runs of Python's garbage collector.", ("generation",), rows.collections),
    Spec("diagnostics_captures_total", "counter", "Captures by how they ended: done, failed, cancelled, or refused (busy, too costly, no room).", ("kind", "outcome"), rows.captures),
    Spec("diagnostics_capture_seconds", "histogram", "From a capture's request until its artifacts were there.", ("kind",), rows.capture_seconds),
    Spec("diagnostics_artifact_bytes", "gauge", "Bytes of the captures that are kept.", (), rows.artifact_bytes),
    Spec("diagnostics_rule_firings_total", "counter", "Firings of the monitor's rules, by what became of their captures.", ("rule", "outcome"), rows.firings),
    Spec("diagnostics_profile_pushes_total", "counter", "Live heaps that were to be pushed: sent, refused by the receiver, dropped for newer ones; and attempts that were retried.", ("outcome",), rows.pushes),
    Spec("diagnostics_egress_uploads_total", "counter", "Captures and recordings that were to be sent to the store, by what became of them: sent, failed (out of tries), dropped (too many waited), lost (deleted before).", ("outcome",), rows.egress_uploads),
    Spec("diagnostics_egress_failed_tries_total", "counter", "Tries to send one that failed; each is tried again until its tries are used up.", (), rows.of_egress("failed_tries")),
    Spec("diagnostics_egress_bytes_total", "counter", "Bytes that the store has taken.", (), rows.of_egress("bytes")),
    Spec("diagnostics_egress_waiting", "gauge", "Captures and recordings that wait to be sent.", (), rows.of_egress("waiting")),
    Spec("diagnostics_rule_actions_total", "counter", "Actions of the monitor's rules by how they ended; suppressed: a limit kept the rule from firing.", ("rule", "action", "outcome"), rows.actions),
    Spec("memory_verdict", "gauge", "1 for the cause that is the verdict on this worker, 0 for all others.", ("cause",), rows.verdict),
    Spec("memory_growth_bytes_per_hour", "gauge", "Slope of in-use memory (of RSS where that is unknown): estimate (mid) and the ends of its 95 % interval.", ("bound",), rows.growth),
    Spec("memory_growth_bytes_per_stream", "gauge", "The same for each stream that finished in that time; absent where none did, or nobody counts them.", ("bound",), rows.growth_per_stream),
    Spec("service_restarts_total", "counter", "How often the worker's process was replaced by another, since the monitor began.", (), rows.restarts),
    Spec("service_oom_kills_total", "counter", "How often the kernel killed the worker's process for memory, since the monitor began.", (), rows.oom_kills),
    Spec("diagnostics_agent_up", "gauge", "1 where the worker's agent answers; its stream metrics are absent where it does not.", (), rows.answers),
)  # fmt: skip
