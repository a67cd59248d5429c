"""The three dashboards: tables of rows of panels.

Streams: what a service's streams do. Memory: where its memory is and where it is going. Incident: one instance, everything
on one time axis.
"""

from __future__ import annotations

from typing import Final

from dashboards.panels import (
    BALANCE,
    BREAKERS,
    BUFFERED,
    BYTES,
    DROPPED,
    FIRST_EVENT,
    GAPS,
    LAG,
    OPEN,
    OUTCOMES,
    OWN,
    PROCESS,
    REJECTED,
    RSS,
    SLOPE,
    TASKS,
    UPSTREAM_CLOSE,
    WAITING,
    WORKER,
    Board,
    Panel,
    Query,
    Row,
)
from dashboards.queries import over, quantile, rate, series, total

__all__ = ["BOARDS"]

STREAMS = Board(
    "highwater-streams",
    "Highwater / Streams",
    "What the streams of a service do: how many, how fast, what is held for them, and how they end.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Open streams", "Streams open now.", "short",
                    (Query(total("", series("stream_open_connections")), "open"),), kind="stat",
                ),
                Panel(
                    "Bytes held", "Bytes held for all open streams, all layers.", "bytes",
                    (Query(total("", series("stream_buffered_bytes")), "held"),), kind="stat",
                ),
                Panel(
                    "Largest stream", "Bytes held for the largest single stream.", "bytes",
                    (Query(total("", series("stream_buffered_bytes_max"), "max"), "largest"),), kind="stat",
                    thresholds=((1048576, "orange"), (8388608, "red")),
                ),
                Panel(
                    "Budget used", "Bytes held, as a share of the budget for all streams; no data: no budget is set.",
                    "percentunit",
                    (
                        Query(
                            over(total("", series("stream_buffered_bytes")), total("", series("stream_budget_bytes"))),
                            "used",
                        ),
                    ),
                    kind="stat", thresholds=((0.7, "orange"), (0.9, "red")),
                ),
                Panel(
                    "Failed streams", "Share of streams that ended in upstream_error, timeout or slow_client.",
                    "percentunit",
                    (
                        Query(
                            over(
                                total("", rate("stream_closed_total", 'outcome=~"upstream_error|timeout|slow_client"')),
                                total("", rate("stream_closed_total")),
                            ),
                            "failed",
                        ),
                    ),
                    kind="stat", thresholds=((0.01, "orange"), (0.05, "red")),
                ),
            ),
        ),
        Row("How many, and how they end", (OPEN, OUTCOMES)),
        Row(
            "How fast",
            (
                FIRST_EVENT,
                GAPS,
                Panel(
                    "Duration of streams", "From the request to the end of the stream.", "s",
                    (
                        Query(quantile(0.5, "stream_duration_seconds"), "p50"),
                        Query(quantile(0.95, "stream_duration_seconds"), "p95", exemplar=True),
                    ),
                ),
            ),
        ),
        Row(
            "What is held",
            (
                BUFFERED,
                Panel(
                    "Most bytes held for one stream",
                    "High-water mark of the application's buffer over a stream's life. A bounded buffer has a p99 at or "
                    "below its bound, whatever the clients do.",
                    "bytes",
                    (
                        Query(quantile(0.5, "stream_buffer_high_water_bytes"), "p50"),
                        Query(quantile(0.99, "stream_buffer_high_water_bytes"), "p99", exemplar=True),
                    ),
                ),
                Panel(
                    "Bytes held against the budget",
                    "Bytes held by each worker for streams, waiting requests and clients that come back; their budget.",
                    "bytes",
                    (
                        Query(total(WORKER, series("stream_buffered_bytes")), PROCESS),
                        Query(total(WORKER, series("request_buffered_bytes")), "requests of " + PROCESS),
                        Query(total(WORKER, series("stream_kept_bytes")), "kept by " + PROCESS),
                        Query(total(WORKER, series("stream_budget_bytes")), "budget of " + PROCESS),
                    ),
                ),
            ),
        ),
        Row("Slow clients and overload", (WAITING, DROPPED, REJECTED, UPSTREAM_CLOSE)),
        Row(
            "Throughput",
            (
                Panel(
                    "Events in and out", "Events from upstreams (in) and to clients (out) per second.", "cps",
                    (Query(total("direction", rate("stream_events_total")), "{{direction}}"),),
                ),
                BYTES,
                BREAKERS,
            ),
        ),
        Row(
            "Beyond this relay",
            (
                Panel(
                    "Events out",
                    "Events that tell of ended streams, by where they go and what becomes of them. All but delivered are lost.",
                    "cps", (Query(total("destination, outcome", rate("events_out_total")), "{{destination}} {{outcome}}"),),
                ),
                Panel(
                    "Events out that wait",
                    "Events that are not delivered yet, by where they go. Rising: a broker or the hub is away or too slow.",
                    "short", (Query(total("destination", series("events_out_waiting")), "{{destination}}"),),
                ),
                Panel(
                    "Bytes of events out", "Bytes held for events that are not delivered yet.", "bytes",
                    (Query(total("destination", series("events_out_waiting_bytes")), "{{destination}}"),),
                ),
                Panel(
                    "Limits shared",
                    "Share of the workers whose limits are those of all replicas; others go by their own. No data: not shared.",
                    "percentunit", (Query(total("", series("limits_shared_up"), "avg"), "sharing"),),
                ),
                Panel(
                    "Questions for shared limits", "By what came of them: answered, failed, or away (not asked).", "cps",
                    (Query(total("outcome", rate("limits_shared_questions_total")), "{{outcome}}"),),
                ),
            ),
        ),
    ),
)  # fmt: skip

MEMORY = Board(
    "highwater-memory",
    "Highwater / Memory",
    "Where the memory of each worker is, where it is going, and what the interpreter does meanwhile.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Resident memory", "Resident memory of all workers.", "bytes",
                    (Query(total("", series("memory_rss_bytes")), "resident"),), kind="stat",
                ),
                Panel(
                    "Of the limit", "The fullest instance: resident memory of its workers as a share of the limit.",
                    "percentunit",
                    (
                        Query(
                            "max("
                            + over(
                                total("instance", series("memory_rss_bytes")),
                                total("instance", series("memory_limit_bytes"), "min"),
                            )
                            + ")",
                            "used",
                        ),
                    ),
                    kind="stat", thresholds=((0.8, "orange"), (0.9, "red")),
                ),
                Panel(
                    "Time to the limit", "At the present slope; no data: no limit, or nothing grows.", "s",
                    (Query(total("", series("memory_seconds_to_limit"), "min"), "left"),), kind="stat",
                    thresholds=((-1, "red"), (1800, "orange"), (21600, "green")),
                ),
                Panel(
                    "Agents answering", "Share of workers whose agent answers; 100 % is right.", "percentunit",
                    (Query(total("", series("diagnostics_agent_up"), "avg"), "answering"),), kind="stat",
                    thresholds=((-1, "red"), (1, "green")),
                ),
            ),
        ),
        Row("Where it is", (BALANCE, RSS, OWN)),
        Row(
            "Where it is going",
            (
                Panel(
                    "Verdicts",
                    "Workers by the cause that is the verdict on them. load_only and inconclusive are no alarms.", "short",
                    (Query(total("cause", series("memory_verdict")), "{{cause}}"),), stacked=True,
                ),
                Panel(
                    "Growth an hour",
                    "Slope of in-use memory with its 95 % interval: low above zero is growth, high near zero is none.",
                    "bytes",
                    (Query(total(f"{WORKER}, bound", series("memory_growth_bytes_per_hour")), PROCESS + " {{bound}}"),),
                ),
                Panel(
                    "Growth a stream", "The same for each stream that finished; no data where nobody counts them.", "bytes",
                    (Query(total(f"{WORKER}, bound", series("memory_growth_bytes_per_stream")), PROCESS + " {{bound}}"),),
                ),
                Panel(
                    "Ends", "Processes of workers that were replaced, and killed by the kernel for memory, per second.", "cps",
                    (
                        Query(total(WORKER, rate("service_restarts_total")), PROCESS + " restarts"),
                        Query(total(WORKER, rate("service_oom_kills_total")), PROCESS + " killed for memory"),
                    ),
                ),
                SLOPE,
                Panel(
                    "Growth per 1,000 streams",
                    "Growth of resident memory for each 1,000 streams that end, over half an hour. What a stream leaves "
                    "behind: near zero, or a leak. It says nothing while the number of open streams changes.",
                    "bytes",
                    (
                        Query(
                            total(WORKER, series("instance_worker:memory_rss_bytes_per_1000_streams:deriv30m")),
                            PROCESS,
                        ),
                    ),
                    thresholds=((8388608, "red"),),
                ),
                Panel(
                    "Time to the limit, by worker",
                    "Forecast at the present slope, for each worker. No data: no limit, or nothing grows.",
                    "s",
                    (Query(total(WORKER, series("memory_seconds_to_limit"), "min"), PROCESS),),
                ),
            ),
        ),
        Row(
            "The interpreter",
            (
                LAG,
                TASKS,
                Panel(
                    "Garbage collections", "Collections per second, by generation. Many of generation 2 cost pauses.",
                    "cps",
                    (Query(total("generation", rate("gc_collections_total")), "generation {{generation}}"),),
                ),
                Panel(
                    "Pooled segments", "Segments of the buffer pool. Used ones follow open streams.", "short",
                    (Query(total("state", series("buffer_pool_segments")), "{{state}}"),), stacked=True,
                ),
                Panel(
                    "Segments allocated",
                    "Share of the segments that the buffer pool had to allocate, since it had kept none. High for long: "
                    "streams come and go in bursts larger than what it keeps.",
                    "percentunit",
                    (
                        Query(
                            over(
                                total("", rate("buffer_pool_misses_total")),
                                "("
                                + total("", rate("buffer_pool_misses_total"))
                                + " + "
                                + total("", rate("buffer_pool_hits_total"))
                                + ")",
                            ),
                            "allocated",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Diagnostics themselves",
            (
                Panel(
                    "Captures",
                    "Captures per second, by kind and outcome, each also an annotation; firings of rules, and their actions.",
                    "cps",
                    (
                        Query(
                            total("kind, outcome", rate("diagnostics_captures_total")), "{{kind}} {{outcome}}"
                        ),
                        Query(
                            total("rule, outcome", rate("diagnostics_rule_firings_total")), "rule {{rule}} {{outcome}}"
                        ),
                        Query(
                            total("rule, action, outcome", rate("diagnostics_rule_actions_total")),
                            "rule {{rule}} {{action}} {{outcome}}",
                        ),
                    ),
                ),
                Panel(
                    "Duration of captures", "95 % of captures took no longer than this, by kind.", "s",
                    (Query(quantile(0.95, "diagnostics_capture_seconds", "kind"), "{{kind}}"),),
                ),
                Panel(
                    "Live heaps pushed", "Profiles for a receiver: sent, refused, dropped; and retried attempts.", "cps",
                    (Query(total("outcome", rate("diagnostics_profile_pushes_total")), "{{outcome}}"),),
                ),
                Panel(
                    "Artifacts on disk", "Bytes of captures kept, below the quota.", "bytes",
                    (Query(total("instance", series("diagnostics_artifact_bytes")), "{{instance}}"),),
                ),
                Panel(
                    "Egress", "Uploads to the object store: what became of them, and what waits.", "short",
                    (
                        Query(total("outcome", rate("diagnostics_egress_uploads_total")), "{{outcome}} /s"),
                        Query(total("", rate("diagnostics_egress_failed_tries_total")), "failed tries /s"),
                        Query(total("", series("diagnostics_egress_waiting")), "waiting"),
                    ),
                ),
                Panel(
                    "Egress, bytes", "Bytes a second that the object store has taken.", "Bps",
                    (Query(total("instance", rate("diagnostics_egress_bytes_total")), "{{instance}}"),),
                ),
            ),
        ),
    ),
)  # fmt: skip

INCIDENT = Board(
    "highwater-incident",
    "Highwater / Incident",
    "One instance, everything on one time axis: what moved first? Dots are traces, vertical lines are captures.",
    (
        Row("What the streams do", (OPEN, OUTCOMES, FIRST_EVENT, GAPS, BYTES, BREAKERS)),
        Row("What is held", (BUFFERED, WAITING, UPSTREAM_CLOSE, DROPPED, REJECTED)),
        Row("The process", (RSS, BALANCE, SLOPE, LAG, TASKS)),
    ),
    one_instance=True,
)

BOARDS: Final = (STREAMS, MEMORY, INCIDENT)
