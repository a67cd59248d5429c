"""What a generator's `finally` releases must be taken inside the generator.

The stream is registered in the handler, with the buffer that it may need, and unregistered in the `finally` of the
generator that makes the body. Before the body begins, a guard model is asked whether the prompt is harmless. A client that
leaves meanwhile gets no stream, and the generator is closed as it should be. But one that never began has no `finally` to
run: closing it does nothing at all. The fix registers inside the generator, where it unregisters.
"""

from __future__ import annotations

from types import MappingProxyType

from ....analysis.decision import Decision, Measure
from ...clients.mix import Mix, Resets
from ...scenario import BROKEN, FIXED, Scenario, Upstream, Workload

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="never_started_generator",
    claim=(
        "A resource taken before a generator is started and released in its finally block is never released "
        "when the client leaves before the first byte. Taken inside the generator, it is taken only if it will be released."
    ),
    apps={BROKEN: f"{__name__}.broken:app", FIXED: f"{__name__}.fixed:app"},
    expected={BROKEN: Decision.LEAK, FIXED: Decision.BOUNDED},
    workload=Workload(
        upstream=Upstream(chunk_bytes=256, chunks_per_second=50),
        # They are gone before the guard has answered, and after the service has read what they ask, also a busy one.
        mix=Mix(((Resets(after_seconds=0.4), 16),), again=True),
        seconds=1.2,
        transient_seconds=0.0,
        least_events=0,
    ),
    # A quarter of the buffer that is registered.
    least={Measure.REMAINS: 16 * 1024},
    source="never_started_generator/",
    environment=MappingProxyType({"GUARD_MODEL": "sim:events=1,size=8,pace=0,first=0.9"}),
)
