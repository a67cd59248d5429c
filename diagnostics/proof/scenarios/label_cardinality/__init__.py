"""A metric with a label that is different for each stream.

A label for the stream makes it easy to find one in the dashboard. For the client library every value of a label is a time
series of its own, with all the buckets of the histogram, that is kept until the process ends: it cannot know that the
stream will not come again. The fix labels by what there are few of, and leaves single streams to traces and logs.
"""

from __future__ import annotations

from ....analysis.decision import Decision, Measure
from ...clients.mix import Fast, Mix
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="label_cardinality",
    claim=(
        "A metric labelled with the stream keeps a time series for every stream that there ever was. "
        "Labelled with the route, it keeps one."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.LEAK, FIXED: Decision.BOUNDED},
    workload=Workload(
        upstream=Upstream(chunk_bytes=64, chunks_per_second=100, events=5),
        mix=Mix(((Fast(), 16),), again=True),
        seconds=1.2,
        transient_seconds=0.0,
    ),
    # A histogram of the default buckets takes several kilobytes for each value of its label.
    least={Measure.REMAINS: 1024},
    source="label_cardinality/",
)
