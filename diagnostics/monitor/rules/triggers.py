"""The triggers that have a name: what each watches, on which side of its bound it fires, and where its value comes from.

Every value may be unknown (None): the agent does not answer, there is no cgroup, no ledger, too few readings. What is not known
fires nothing, and a stretch of time that is broken by it begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["DAY", "TRIGGERS", "Trigger"]

DAY: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Trigger:
    """`low` and `high`: bounds that can be crossed; a share of 85 was meant as a percentage, and would never be.

    needs   recording: the last reading; outlook: trends over what is recorded; verdict: the verdict on the worker, too
    """

    side: Literal["above", "below"]
    says: str
    low: float
    high: float
    needs: Literal["recording", "outlook", "verdict"] = "recording"


TRIGGERS: Final[dict[str, Trigger]] = {
    "cgroup_share": Trigger("above", "working set of the cgroup, as a share of its limit, 0 to 1", 0, 0.999),
    "rss_share": Trigger(
        "above", "RSS, as a share of the cgroup's limit or, without one, of the machine's memory, 0 to 1", 0, 0.999
    ),
    "seconds_to_limit": Trigger(
        "below", "seconds until the cgroup's working set meets its limit at the present slope", 1, 30 * DAY, "outlook"
    ),
    "buffered_bytes": Trigger(
        "above", "bytes that all open streams hold in the application and in the server", 0, 2**60
    ),
    "growth_per_stream": Trigger(
        "above", "bytes of in-use memory that each finished stream leaves behind, by the low end of the interval",
        0, 2**40, "verdict",
    ),
    "orphan_tasks": Trigger(
        "above", "unfinished asyncio tasks by which they have grown while open streams have not", 0, 1e9, "verdict"
    ),
    "leaked_tasks": Trigger(
        "above", "asyncio tasks that nothing can wake, by a tasks capture of the last ten minutes", 0, 1e9, "verdict"
    ),
    "loop_lag": Trigger("above", "seconds that a call waits for an event loop, now", 0, 3600),
    "unclosed_upstreams": Trigger(
        "above", "streams that go on 5 s after their client left; without a ledger, connections to others that grow",
        0, 1e9, "verdict",
    ),
}  # fmt: skip
