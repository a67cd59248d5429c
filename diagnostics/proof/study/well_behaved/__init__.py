"""Services that look suspicious and are not: a study runs each of them, and none of them may be accused.

    filling_cache    a cache that keeps 16 KiB of each stream, until it is full after a hundred streams
    warming_cache    a cache of answers by prompt: it grows in every round, ever slower, for there are 256 prompts
    lazy_imports     modules and tables that are made at the eightieth stream, after the warm-up
    fragmentation    the last 512 answers in blocks of every size, so that freed blocks lie between live ones
    sawtooth         a job that takes 1 MiB for a fifth of a second, every 0.7 s, whatever the streams do
    ramping_load     streams that come one by one all through the round, to a relay that does nothing wrong

BOUNDED and INCONCLUSIVE are right, LEAK and UNBOUNDED are false alarms. A cache that grows steadily for longer than the
experiment lasts cannot be among them: in that time it cannot be distinguished from a leak.
"""

from __future__ import annotations

from ....analysis.decision import Decision, Measure
from ...clients.mix import Fast, Leaves, Mix
from ...scenario import FIXED, Scenario, Upstream, Workload

__all__ = ["WELL_BEHAVED"]

# As in the scenarios that judge what remains: streams that come and go.
_COMING_AND_GOING = Workload(
    upstream=Upstream(chunk_bytes=1024, chunks_per_second=100, events=100),
    mix=Mix(((Leaves(after_events=10), 8),), again=True),
    seconds=1.2,
    transient_seconds=0.0,
)
# As in the scenarios that judge what an open stream gains: streams that stay.
_STAYING = Workload(
    upstream=Upstream(chunk_bytes=1024, chunks_per_second=100),
    mix=Mix(((Fast(), 8),)),
    seconds=1.5,
    transient_seconds=0.5,
)
_RAMP = Workload(
    upstream=Upstream(chunk_bytes=1024, chunks_per_second=100),
    mix=Mix(((Fast(), 16),), arrival_seconds=1.4),
    seconds=1.5,
    transient_seconds=0.5,
)
_REMAINS = {Measure.REMAINS: 8 * 1024.0}
_GROWTH = {Measure.GROWTH: 512.0, Measure.REMAINS: 32 * 1024.0}


def _service(name: str, claim: str, workload: Workload, least: dict[Measure, float], app: str = "") -> Scenario:
    return Scenario(
        name=name,
        claim=claim,
        apps={FIXED: app or f"{__name__}.{name}:app"},
        expected={FIXED: Decision.BOUNDED},
        workload=workload,
        least=least,
        source="well_behaved/",
    )


WELL_BEHAVED: dict[str, Scenario] = {
    service.name: service
    for service in (
        _service("filling_cache", "A cache that becomes full is no leak.", _COMING_AND_GOING, _REMAINS),
        _service("warming_cache", "A cache that grows ever slower is no leak.", _COMING_AND_GOING, _REMAINS),
        _service("lazy_imports", "What is loaded once is no leak.", _COMING_AND_GOING, _REMAINS),
        _service("fragmentation", "Holes between living blocks are no leak.", _COMING_AND_GOING, _REMAINS),
        _service("sawtooth", "A job that comes and goes is no growth of a stream.", _STAYING, _GROWTH),
        _service(
            "ramping_load",
            "More streams are no growth of a stream.",
            _RAMP,
            _GROWTH,
            "diagnostics.proof.scenarios.accumulated_response.fixed:app",
        ),
    )
}
