"""A shutdown that waits for streams that do not end.

On SIGTERM the server takes no new connections and waits for the open ones, as it should: a request that has begun is to
be answered. A stream has no end of its own. The process stays, with all its memory, beside the one that was started in
its place, until it is killed, and then the streams are cut off without a word. The fix tells the streams: each sends a
last event and ends.
"""

from __future__ import annotations

from ....analysis.decision import Decision, Measure, Plan
from ...clients.mix import Fast, Mix
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="stuck_drain",
    claim=(
        "A service whose streams are not told of its shutdown does not exit as long as one of them is open. "
        "Told, they end with a last event, and the process exits within its deadline."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.UNBOUNDED, FIXED: Decision.BOUNDED},
    workload=Workload(
        upstream=Upstream(chunk_bytes=256, chunks_per_second=50),
        mix=Mix(((Fast(), 4),)),
        seconds=0.5,
        may_end=True,
    ),
    # The deadline. The fixed app needs a few tenths of a second, most of it for closing the interpreter; on a machine with
    # eight times as much to do as it has cores it needs two.
    least={Measure.EXIT: 4.0},
    source="stuck_drain/",
    # Each round starts a process: three are enough for seconds against tenths.
    plan=Plan(looks=(3, 5)),
)
