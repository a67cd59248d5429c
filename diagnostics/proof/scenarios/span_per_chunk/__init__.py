"""A span for each chunk, in a trace that is kept until it is whole.

Traces of failed streams are the ones that are wanted, so a processor keeps a trace's spans until its root ends, and then
exports or drops them: a common way to sample by outcome. With a span for each chunk the trace of a stream is as long as
the stream, and so is what the processor keeps. The fix has one span for a stream, and the number of its chunks as an
attribute.
"""

from __future__ import annotations

from ....analysis.decision import Decision, Measure
from ...clients.mix import Fast, Mix
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="span_per_chunk",
    claim=(
        "With a span for each chunk the trace of an open stream grows with every chunk that goes through it. "
        "One span for the stream, with a count, is as large after an hour as at its beginning."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.UNBOUNDED, FIXED: Decision.BOUNDED},
    workload=Workload(
        upstream=Upstream(chunk_bytes=64, chunks_per_second=100),
        mix=Mix(((Fast(), 8),)),
        seconds=1.5,
        transient_seconds=0.5,
    ),
    least={
        # A span of the SDK takes about three kilobytes.
        Measure.GROWTH: 512,
        Measure.REMAINS: 32 * 1024,
    },
    source="span_per_chunk/",
)
