"""The upstream is closed when the answer is complete, and only then.

The relay keeps its open upstream responses in a table, for its status page, and closes each after the loop that reads it.
A client that leaves never lets the loop come to its end: the lines after it do not run. The response stays in the table,
with its connection and what was already read, while the upstream goes on generating tokens that are paid for. The fix is
`finally`.
"""

from __future__ import annotations

from ....analysis.decision import Decision, Measure
from ...clients.mix import Leaves, Mix
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="unclosed_upstream",
    claim=(
        "An upstream response that is closed after the loop is not closed when the client leaves within the loop. "
        "Closed in a finally block, it ends with its stream, whichever way that ends."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.LEAK, FIXED: Decision.BOUNDED},
    workload=Workload(
        # Nobody stays to its end. Without an end what is left behind would fill for seconds after each round.
        upstream=Upstream(chunk_bytes=1024, chunks_per_second=100, events=100),
        mix=Mix(((Leaves(after_events=10), 8),), again=True),
        seconds=1.2,
        transient_seconds=0.0,
    ),
    # The response's objects without its buffers are more than this.
    least={Measure.REMAINS: 8 * 1024},
    source="unclosed_upstream/",
)
