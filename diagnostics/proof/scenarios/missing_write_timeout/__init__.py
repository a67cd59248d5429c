"""A client that never reads holds its stream for ever.

Backpressure does what it should: the server's buffer is full, `send` waits, the upstream waits. It waits for a client
that has gone to sleep with its connection open, and there is no time-out for writing: the buffers of this stream, its
task and its upstream connection stay until somebody restarts the service. The fix gives a full buffer half a second to
become less full and then aborts the connection. It is in the server's protocol class, because only the transport can be
aborted: closing it would wait for the same client.
"""

from __future__ import annotations

from ....analysis.decision import Decision, Measure
from ...clients.mix import Mix, NeverReads
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="missing_write_timeout",
    claim=(
        "Without a time-out for writing, a client that never reads holds a stream's buffers for as long as it stays. "
        "With one, its connection is aborted and everything behind it is given back, while the client is still there."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.LEAK, FIXED: Decision.BOUNDED},
    workload=Workload(
        upstream=Upstream(chunk_bytes=4096, chunks_per_second=200),
        mix=Mix(((NeverReads(), 8),)),
        # The buffers are full after half a second, and the time-out over half a second later.
        seconds=2.0,
        transient_seconds=1.2,
        least_events=0,
    ),
    least={
        # An eighth of what the buffers of a stream hold when they are full.
        Measure.HELD: 32 * 1024,
        Measure.REMAINS: 16 * 1024,
    },
    source="missing_write_timeout/",
    options={FIXED: ("--http", f"{__name__}.fixed:ImpatientProtocol")},
)
