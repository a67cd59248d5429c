"""The last errors are kept, and with each of them everything that its frames could see.

A status page shows what failed lately, so the exceptions are put into a deque of bounded length. An exception has its
traceback, the traceback its frames, and a frame all its variables: the request, the buffer into which the upstream was
being read, the response and its connection. The list is bounded in errors, not in bytes. The fix keeps what is shown: a
line of text.
"""

from __future__ import annotations

from ....analysis.decision import Decision, Measure
from ...clients.mix import Fast, Mix
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="exception_retention",
    claim=(
        "An exception that is kept keeps its frames, and they keep the buffers of the stream that failed. "
        "Kept as text, it is a hundred bytes."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.LEAK, FIXED: Decision.BOUNDED},
    workload=Workload(
        upstream=Upstream(chunk_bytes=1024, chunks_per_second=100, events=100, fault="disconnect@8"),
        mix=Mix(((Fast(), 8),), again=True),
        seconds=1.2,
        transient_seconds=0.0,
    ),
    # An eighth of the window that a failed stream had open.
    least={Measure.REMAINS: 4 * 1024},
    source="exception_retention/",
)
