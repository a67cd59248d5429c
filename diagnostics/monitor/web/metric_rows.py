"""What each metric has of a worker: rows of label values and a value, from one scrape's readings. What is unknown has no row.

A label's value is a worker's number, a route, an outcome or another word of a fixed list: the number of series depends on the
service's code, never on its traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ...analysis.verdict.causes import CAUSES
from ..captures.counts import CaptureCounts
from ..egress.counts import EgressCounts
from ..recording.outlook import Outlook
from ..workers.processes import Children
from ..workers.targets import Snapshot

__all__ = [
    "Row",
    "Rows",
    "Scraped",
    "actions",
    "answers",
    "artifact_bytes",
    "balance",
    "breakers",
    "buffered",
    "by_direction",
    "by_route",
    "by_word",
    "capture_seconds",
    "captures",
    "children",
    "collections",
    "egress_uploads",
    "firings",
    "growth",
    "growth_per_stream",
    "kept",
    "ledger",
    "limit",
    "loop_lag",
    "of_balance",
    "of_egress",
    "oom_kills",
    "open_streams",
    "outbox",
    "pool_count",
    "pool_segments",
    "pushes",
    "rejected",
    "requests",
    "restarts",
    "rss",
    "seconds_to_limit",
    "sent_on",
    "shared_questions",
    "sharing",
    "tasks",
    "verdict",
]


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


def ledger(key: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        ledger = _ledger_of(snapshot)
        if ledger:
            yield (), ledger[key]

    return rows


def by_route(key: str, *fixed: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        for route, totals in _routes(snapshot):
            yield (route, *fixed), totals[key]

    return rows


def open_streams(snapshot: Scraped) -> Iterator[Row]:
    """Open streams from the ledger; without one, the server's open responses."""
    if _ledger_of(snapshot):
        yield from by_route("open")(snapshot)
        return
    for route, row in snapshot.connections.get("routes", {}).items():
        if row["open"] is not None:
            yield (route,), row["open"]


def buffered(snapshot: Scraped) -> Iterator[Row]:
    yield from by_route("buffered_bytes", "app")(snapshot)
    for route, row in snapshot.connections.get("routes", {}).items():
        for layer in ("transport", "kernel"):
            if row[f"{layer}_bytes"] is not None:
                yield (route, layer), row[f"{layer}_bytes"]


def requests(snapshot: Scraped) -> Iterator[Row]:
    for part, held in (_ledger_of(snapshot).get("requests") or {}).items():
        yield (part,), held


def kept(snapshot: Scraped) -> Iterator[Row]:
    kept = _ledger_of(snapshot).get("kept_bytes")
    if kept is not None:
        yield (), kept


def by_direction(stem: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        for route, totals in _routes(snapshot):
            for direction in ("in", "out"):
                yield (route, direction), totals[f"{stem}_{direction}"]

    return rows


def by_word(key: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        for route, totals in _routes(snapshot):
            for word, count in totals[key].items():
                yield (route, word), count

    return rows


def rejected(snapshot: Scraped) -> Iterator[Row]:
    for reason, count in _ledger_of(snapshot).get("rejected", {}).items():
        yield (reason,), count


def outbox(key: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        for destination, told in (_ledger_of(snapshot).get("outbox") or {}).items():
            yield (destination,), told[key]

    return rows


def sent_on(snapshot: Scraped) -> Iterator[Row]:
    for destination, told in (_ledger_of(snapshot).get("outbox") or {}).items():
        for outcome, count in told["outcomes"].items():
            yield (destination, outcome), count


def sharing(snapshot: Scraped) -> Iterator[Row]:
    sharing = _ledger_of(snapshot).get("shared_limits")
    if sharing is not None:
        yield (), sharing["up"]


def shared_questions(snapshot: Scraped) -> Iterator[Row]:
    for outcome, count in (_ledger_of(snapshot).get("shared_limits") or {}).items():
        if outcome != "up":
            yield (outcome,), count


def pool_segments(snapshot: Scraped) -> Iterator[Row]:
    pool = _ledger_of(snapshot).get("pool") or {}
    for state in ("used", "free"):
        if state in pool:
            yield (state,), pool[state]


def pool_count(key: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        pool = _ledger_of(snapshot).get("pool")
        if pool:
            yield (), pool[key]

    return rows


def breakers(snapshot: Scraped) -> Iterator[Row]:
    for number, state in enumerate(_ledger_of(snapshot).get("breakers", ())):
        yield (str(number),), int(state != "closed")


def rss(snapshot: Scraped) -> Iterator[Row]:
    yield (), snapshot.process.rss_bytes


def of_balance(key: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        held = (snapshot.balance or {}).get(key)
        if held is not None:
            yield (), held

    return rows


def children(snapshot: Scraped) -> Iterator[Row]:
    if snapshot.children is not None and snapshot.children.pss is not None:
        yield (), snapshot.children.pss


def limit(snapshot: Scraped) -> Iterator[Row]:
    if snapshot.outlook and snapshot.outlook.limit_bytes is not None:
        yield (), snapshot.outlook.limit_bytes


def seconds_to_limit(snapshot: Scraped) -> Iterator[Row]:
    if snapshot.outlook and snapshot.outlook.seconds_to_limit is not None:
        yield (), snapshot.outlook.seconds_to_limit


def loop_lag(snapshot: Scraped) -> Iterator[Row]:
    if snapshot.reading and snapshot.reading["loop_lag"] is not None:
        yield (), snapshot.reading["loop_lag"]


def tasks(snapshot: Scraped) -> Iterator[Row]:
    for state, count in ((snapshot.reading or {}).get("task_states") or {}).items():
        yield (state,), count


def collections(snapshot: Scraped) -> Iterator[Row]:
    for generation, count in enumerate((snapshot.reading or {}).get("gc", {}).get("collections", ())):
        yield (str(generation),), count


def firings(snapshot: Scraped) -> Iterator[Row]:
    yield from snapshot.firings.items()


def actions(snapshot: Scraped) -> Iterator[Row]:
    yield from snapshot.actions.items()


def captures(snapshot: Scraped) -> Iterator[Row]:
    yield from snapshot.captures.outcomes.items()


def capture_seconds(snapshot: Scraped) -> Iterator[Row]:
    for kind, took in snapshot.captures.seconds.items():
        yield (kind,), took


def pushes(snapshot: Scraped) -> Iterator[Row]:
    for outcome, count in snapshot.pushes.items():
        yield (outcome,), count


def artifact_bytes(snapshot: Scraped) -> Iterator[Row]:
    yield (), snapshot.captures.artifact_bytes


def egress_uploads(snapshot: Scraped) -> Iterator[Row]:
    if snapshot.egress is not None:
        for outcome, count in snapshot.egress.ended.items():
            yield (outcome,), count


def of_egress(key: str) -> Rows:
    def rows(snapshot: Scraped) -> Iterator[Row]:
        if snapshot.egress is not None:
            yield (), getattr(snapshot.egress, key)

    return rows


def balance(snapshot: Scraped) -> Iterator[Row]:
    for part, held in (snapshot.balance or {}).get("parts", {}).items():
        if held is not None:  # unknown is not 0
            yield (part,), held


def verdict(snapshot: Scraped) -> Iterator[Row]:
    # A row for every cause, so that an alert on one resolves.
    for cause in CAUSES:
        yield (cause,), int(cause == snapshot.verdict)


def growth(snapshot: Scraped) -> Iterator[Row]:
    """Bytes an hour of in-use memory, or of RSS where in-use memory is unknown."""
    drift = snapshot.outlook.memory if snapshot.outlook else None
    if drift is not None:
        for bound, slope in zip(_BOUNDS, (drift.low, drift.slope, drift.high), strict=True):
            yield (bound,), slope * 3600


def growth_per_stream(snapshot: Scraped) -> Iterator[Row]:
    left = snapshot.outlook.per_stream if snapshot.outlook else None
    for bound, each in zip(_BOUNDS, left or (), strict=False):
        yield (bound,), each


def restarts(snapshot: Scraped) -> Iterator[Row]:
    yield (), snapshot.restarts


def oom_kills(snapshot: Scraped) -> Iterator[Row]:
    yield (), snapshot.oom_kills


def answers(snapshot: Scraped) -> Iterator[Row]:
    yield (), int(snapshot.state == "answering")


def _ledger_of(snapshot: Scraped) -> Mapping[str, Any]:
    return (snapshot.reading or {}).get("ledger") or {}


def _routes(snapshot: Scraped) -> Iterable[tuple[str, Mapping[str, Any]]]:
    routes: Mapping[str, Mapping[str, Any]] = _ledger_of(snapshot).get("routes", {})
    return routes.items()
