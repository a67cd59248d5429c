"""A decoder that waits for the end of an event, however long it takes.

Server-sent events end with a blank line, so the decoder keeps what has come until there is one. An upstream that never
sends it (a fault, or a hostile one) fills the decoder at the pace of the network, and nothing goes out that would show.
The fix is a limit: an event that is larger ends its stream with an error.
"""

from __future__ import annotations

from ....analysis.decision import Decision, Measure
from ...clients.mix import Fast, Mix
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="unterminated_event",
    claim=(
        "A decoder without a limit keeps an event that never ends for as long as the upstream sends it. "
        "With a limit the stream ends with an error, at a size that was chosen beforehand."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.UNBOUNDED, FIXED: Decision.BOUNDED},
    workload=Workload(
        upstream=Upstream(chunk_bytes=2048, chunks_per_second=200, fault="endless@10"),
        # Those whose stream was ended come again, as clients do.
        mix=Mix(((Fast(), 8),), again=True),
        seconds=1.5,
        transient_seconds=0.5,
        least_events=10,
        may_end=True,
    ),
    least={
        # A quarter of what is offered.
        Measure.GROWTH: 512,
        Measure.REMAINS: 32 * 1024,
    },
    source="unterminated_event/",
)
