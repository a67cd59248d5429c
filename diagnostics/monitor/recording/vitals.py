"""What the recorder keeps of a worker each second: the table of its fields, and where each comes from.

Everything is one double; NaN is "not known". A field is added at the end of its group and nowhere else spelled: the file's
header carries the names and units, and the timeline, the CSV and the black box follow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..kernel.cgroup import CgroupReading
from ..kernel.process import ProcessReading
from ..kernel.rollup import Rollup
from ..workers.processes import Children

__all__ = ["FIELDS", "JUDGED", "Field", "Recorded", "fold", "index_of", "vitals"]


@dataclass(frozen=True, slots=True)
class Field:
    """One number of a record.

    minute   what a minute keeps of its seconds: "max" for what must not be missed, "last" for totals, "min" for a state
    """

    name: str
    unit: str
    minute: Literal["max", "last", "min"] = "max"


FIELDS: tuple[Field, ...] = (
    Field("time", "seconds since the epoch", "last"),
    # from outside: there whether the agent answers or not
    Field("rss_bytes", "bytes"),
    Field("pss_bytes", "bytes"),
    Field("private_bytes", "bytes"),
    Field("children", "count"),
    Field("children_rss_bytes", "bytes"),
    Field("children_pss_bytes", "bytes"),
    Field("cgroup_usage_bytes", "bytes"),
    Field("cgroup_working_bytes", "bytes"),
    Field("cgroup_limit_bytes", "bytes", "last"),
    Field("psi_some_avg10", "percent"),
    Field("threads", "count"),
    Field("fds", "count"),
    Field("outgoing_connections", "count"),
    Field("client_connections", "count"),
    Field("cpu_seconds", "seconds, total", "last"),
    Field("mapped_bytes", "bytes"),
    Field("shared_bytes", "bytes"),
    # from the agent
    Field("agent_answers", "1 or 0", "min"),
    Field("in_use_bytes", "bytes"),
    Field("python_live_bytes", "bytes"),
    Field("malloc_live_bytes", "bytes"),
    Field("python_large_blocks", "count"),
    Field("tasks", "count"),
    Field("loop_lag_seconds", "seconds"),
    Field("loop_pending_seconds", "seconds"),
    Field("gc_young_objects", "count"),
    Field("gc_collections_0", "count, total", "last"),
    Field("gc_collections_1", "count, total", "last"),
    Field("gc_collections_2", "count, total", "last"),
    # from the ledger where there is one; the first and the transport's bytes from the server, the kernel's from outside
    Field("open_streams", "count"),
    Field("buffered_app_bytes", "bytes"),
    Field("buffered_transport_bytes", "bytes"),
    Field("buffered_kernel_bytes", "bytes"),
    Field("events_total", "count, total", "last"),
    Field("streams_finished_total", "count, total", "last"),
    Field("abandoned_streams", "count"),
)

# The series that a verdict looks at.
JUDGED: tuple[str, ...] = (
    "cgroup_working_bytes",
    "cgroup_limit_bytes",
    "threads",
    "fds",
    "malloc_live_bytes",
    "rss_bytes",
    "mapped_bytes",
    "shared_bytes",
    "pss_bytes",
    "private_bytes",
    "children",
    "children_rss_bytes",
    "children_pss_bytes",
    "in_use_bytes",
    "python_live_bytes",
    "python_large_blocks",
    "gc_collections_1",
    "gc_collections_2",
    "tasks",
    "outgoing_connections",
    "client_connections",
    "open_streams",
    "streams_finished_total",
    "buffered_app_bytes",
    "buffered_transport_bytes",
)

_INDEX = {field.name: index for index, field in enumerate(FIELDS)}
_FOLDS = {"max": max, "min": min}


@dataclass(frozen=True, slots=True)
class Recorded:
    """Readings of one worker, the oldest first: `time` and other fields by their names, NaN where one is not known.

    started   the process's start, seconds since the epoch, as its recording has it
    """

    columns: dict[str, list[float]]
    started: object


def index_of(name: str) -> int:
    """Where a field's number stands in a record."""
    return _INDEX[name]


def vitals(
    time: float,
    process: ProcessReading,
    cgroup: CgroupReading | None,
    kernel_bytes: int | None,
    sample: Mapping[str, Any] | None,
    outgoing: int | None = None,
    clients: int | None = None,
    own: Rollup | None = None,
    children: Children | None = None,
) -> tuple[float, ...]:
    """One record.

    kernel_bytes   in the send queues of the worker's clients, None where they cannot be told from other sockets
    outgoing       TCP connections to others, its clients' not counted; None likewise
    clients        TCP connections of its clients; None likewise
    own            PSS and private bytes, None where the kernel does not tell
    children       the worker's children that are no workers themselves; None where nobody looked
    sample         the agent's answer to the operation `sample`, None where it gave none
    """
    said = sample or {}
    streams, responses = said.get("streams") or {}, said.get("responses") or {}
    collections = said.get("gc_collections") or ()
    known: dict[str, Any] = {
        "time": time,
        "rss_bytes": process.rss_bytes,
        "threads": process.threads,
        "fds": process.fds,
        "outgoing_connections": outgoing,
        "client_connections": clients,
        "cpu_seconds": process.cpu_seconds,
        "mapped_bytes": process.mapped_bytes,
        "shared_bytes": process.shared_bytes,
        "agent_answers": int(sample is not None),
        **{name: said.get(name) for name in said if name in _INDEX},
        **{f"gc_collections_{generation}": count for generation, count in enumerate(collections)},
        "open_streams": streams.get("open", responses.get("open")),
        "buffered_app_bytes": streams.get("buffered_bytes"),
        "buffered_transport_bytes": responses.get("transport_bytes"),
        "buffered_kernel_bytes": kernel_bytes,
        "events_total": streams.get("events"),
        "streams_finished_total": streams.get("finished"),
        "abandoned_streams": streams.get("abandoned"),
    }
    if own is not None:
        known |= {"pss_bytes": own.pss, "private_bytes": own.private}
    if children is not None:
        known |= {
            "children": children.count, "children_rss_bytes": children.rss, "children_pss_bytes": children.pss
        }  # fmt: skip
    if cgroup is not None:
        known["cgroup_usage_bytes"] = cgroup.usage_bytes
        known["cgroup_working_bytes"] = cgroup.working_bytes
        known["cgroup_limit_bytes"] = cgroup.limit_bytes
        known["psi_some_avg10"] = cgroup.psi_some_avg10
    return tuple(_number(known.get(field.name)) for field in FIELDS)


def fold(records: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """One record of the several of a minute (at least one), by each field's rule; what was never known stays so."""
    return tuple(_fold(field.minute, (record[index] for record in records)) for index, field in enumerate(FIELDS))


def _fold(rule: str, values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return math.nan
    return known[-1] if rule == "last" else _FOLDS[rule](known)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
