"""What a panel is, and the panels that several dashboards show. No Grafana in here; `build.py` turns them into its JSON.

A panel's description says what the figure is and what to think when it moves: it is read at night.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from dashboards.queries import quantile, rate, series, total

__all__ = [
    "BALANCE",
    "BREAKERS",
    "BUFFERED",
    "BYTES",
    "DROPPED",
    "FIRST_EVENT",
    "GAPS",
    "LAG",
    "OPEN",
    "OUTCOMES",
    "OWN",
    "PROCESS",
    "REJECTED",
    "RSS",
    "SLOPE",
    "TASKS",
    "UPSTREAM_CLOSE",
    "WAITING",
    "WORKER",
    "Board",
    "Panel",
    "Query",
    "Row",
]


@dataclass(frozen=True)
class Query:
    """One PromQL expression and how its series are called. `exemplar`: show the traces behind the figure as dots."""

    expr: str
    legend: str
    exemplar: bool = False


@dataclass(frozen=True)
class Panel:
    """One graph or figure. `unit` is Grafana's name of it; `thresholds` are (from this value on, colour)."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat"] = "timeseries"
    stacked: bool = False
    thresholds: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Row:
    """Panels side by side, as wide as their number allows; on a board of one instance, one below the other."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Board:
    """One dashboard. `one_instance`: everything in it is about a single process on a single time axis."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    one_instance: bool = False


WORKER: Final = "instance, worker"
PROCESS: Final = "{{instance}} worker {{worker}}"

FIRST_EVENT = Panel(
    "Time to first event",
    "From the request to the first event sent to the client. Rising with a steady upstream means that the loop is late "
    "or that streams wait for admission. The dots are traces of single streams.",
    "s",
    (
        Query(quantile(0.5, "stream_time_to_first_event_seconds"), "p50"),
        Query(quantile(0.95, "stream_time_to_first_event_seconds"), "p95", exemplar=True),
        Query(quantile(0.99, "stream_time_to_first_event_seconds"), "p99"),
    ),
    thresholds=((5, "red"),),
)
GAPS = Panel(
    "Gaps between events",
    "Between two sends on one stream. The median is the upstream's pace; a p99 that leaves it is a stalled upstream, a "
    "slow client or a blocked event loop.",
    "s",
    (
        Query(quantile(0.5, "stream_inter_event_seconds"), "p50"),
        Query(quantile(0.99, "stream_inter_event_seconds"), "p99"),
    ),
)
OUTCOMES = Panel(
    "Streams ended, by outcome",
    "Streams that ended, per second, by how. client_disconnected is normal in a chat; upstream_error, timeout and "
    "slow_client are not.",
    "cps",
    (Query(total("outcome", rate("stream_closed_total")), "{{outcome}}"),),
    stacked=True,
)
BUFFERED = Panel(
    "Bytes held, by layer",
    "Bytes held for open streams: by the application (app), by the server's write buffer (transport), by the socket "
    "(kernel). app that grows while streams do not is an unbounded buffer.",
    "bytes",
    (Query(total("layer", series("stream_buffered_bytes")), "{{layer}}"),),
    stacked=True,
)
WAITING = Panel(
    "Streams waiting for their client",
    "Seconds of backpressure per second, which is the mean number of streams that wait for their client to take bytes. "
    "Near the number of open streams, clients are slower than the upstream.",
    "short",
    (Query(total("route", rate("stream_backpressure_seconds_total")), "{{route}}"),),
)
DROPPED = Panel(
    "Events dropped",
    "Events per second that an overflow policy threw away, by policy. Anything above zero is a client that sees a gap.",
    "cps",
    (Query(total("route, policy", rate("stream_dropped_events_total")), "{{route}} {{policy}}"),),
)
REJECTED = Panel(
    "Streams not let in",
    "Requests refused per second, by reason: streams, bytes, memory, concurrency, rate; key and scope are wrong keys.",
    "cps",
    (Query(total("reason", rate("stream_rejected_total")), "{{reason}}"),),
)
BREAKERS = Panel(
    "Circuit breakers that are open",
    "1 while a worker leaves an upstream alone, or tries it again. Upstream 0 is the first one; the others are its fallbacks.",
    "short",
    (
        Query(
            total("instance, worker, upstream", series("stream_upstream_breaker_open"), "max"),
            PROCESS + " upstream {{upstream}}",
        ),
    ),
    thresholds=((1, "red"),),
)
UPSTREAM_CLOSE = Panel(
    "From a client's leaving to its upstream's end",
    "How long an upstream goes on, and is paid for, after its client has left. It should be milliseconds.",
    "s",
    (
        Query(quantile(0.5, "stream_disconnect_to_upstream_close_seconds"), "p50"),
        Query(quantile(0.99, "stream_disconnect_to_upstream_close_seconds"), "p99", exemplar=True),
    ),
    thresholds=((1, "red"),),
)
BYTES = Panel(
    "Bytes in and out",
    "Body bytes from upstreams (in) and to clients (out) per second. In above out for long means that bytes are kept, "
    "or read for nobody.",
    "Bps",
    (Query(total("direction", rate("stream_bytes_total")), "{{direction}}"),),
)
OPEN = Panel(
    "Open streams, by route",
    "Streams open now, by route.",
    "short",
    (Query(total("route", series("stream_open_connections")), "{{route}}"),),
    stacked=True,
)
BALANCE = Panel(
    "Where resident memory is",
    "Disjoint parts of resident memory. python_live grows: objects are kept. malloc_live grows: a C extension keeps "
    "them. The free parts grow: fragmentation, which no fix of a reference cures. mapped_files is mostly code.",
    "bytes",
    (Query(total("part", series("memory_balance_bytes")), "{{part}}"),),
    stacked=True,
)
RSS = Panel(
    "Resident memory and its limit",
    "What the kernel counts as resident, for each worker, and the limit of its cgroup where it has one.",
    "bytes",
    (
        Query(total(WORKER, series("memory_rss_bytes")), PROCESS),
        Query(total("instance", series("memory_limit_bytes"), "min"), "{{instance}} limit"),
    ),
)
OWN = Panel(
    "What is each worker's own, and its children's",
    "Private memory that rises while resident memory stays: pages shared with the parent are copied. PSS counts a shared "
    "page by its share, so its sum is what the service takes. Children are processes that serve nothing themselves.",
    "bytes",
    (
        Query(total(WORKER, series("memory_private_bytes")), "private " + PROCESS),
        Query(total(WORKER, series("memory_pss_bytes")), "PSS " + PROCESS),
        Query(total(WORKER, series("memory_children_bytes")), "children of " + PROCESS),
    ),
)
LAG = Panel(
    "Event loop lag",
    "How late the event loop runs what is due. Above a few tens of milliseconds every stream of the worker is late at "
    "once: something computes on the loop.",
    "s",
    (
        Query(quantile(0.5, "event_loop_lag_seconds", WORKER), "p50 " + PROCESS),
        Query(quantile(0.99, "event_loop_lag_seconds", WORKER), "p99 " + PROCESS),
    ),
    thresholds=((0.1, "orange"), (0.25, "red")),
)
TASKS = Panel(
    "asyncio tasks",
    "Tasks by state. They should follow open streams; tasks that stay when streams end are orphans.",
    "short",
    (Query(total("state", series("asyncio_tasks")), "{{state}}"),),
    stacked=True,
)
SLOPE = Panel(
    "Growth of resident memory",
    "Slope of resident memory over ten minutes. A service under steady load has a slope around zero once it is warm.",
    "Bps",
    (Query(total(WORKER, series("instance_worker:memory_rss_bytes:deriv10m")), PROCESS),),
)
