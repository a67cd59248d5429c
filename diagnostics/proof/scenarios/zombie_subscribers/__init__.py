"""A broadcast to clients that left long ago.

Each subscriber gets a queue in the hub's set, with the oldest event dropped where it is full: nobody can slow the others
down, nobody can hold more than his queue. But a client that leaves stays subscribed. Its queue is filled for nobody, and
with every client that comes and goes the hub gets bigger and a publication dearer. The fix takes the queue out again.
"""

from __future__ import annotations

from types import MappingProxyType

from ....analysis.decision import Decision, Measure
from ...clients.mix import Leaves, Mix
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="zombie_subscribers",
    claim=(
        "A hub that never forgets a subscriber keeps a queue full of events for each client that ever came. "
        "Unsubscribed when its stream ends, a client leaves nothing behind."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.LEAK, FIXED: Decision.BOUNDED},
    workload=Workload(
        upstream=Upstream(chunk_bytes=1024, chunks_per_second=100),
        mix=Mix(((Leaves(after_events=10), 8),), again=True),
        seconds=1.2,
        transient_seconds=0.0,
    ),
    # A quarter of what a zombie's queue holds: 32 events of a kilobyte.
    least={Measure.REMAINS: 8 * 1024},
    source="zombie_subscribers/",
    # What is broadcast: the hub listens to it from its start.
    environment=MappingProxyType({"FEED_MODEL": "sim:events=inf,size=1024,pace=100"}),
)
