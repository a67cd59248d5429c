"""What a scenario is: a claim about memory that can turn out to be wrong.

A scenario is two small services that differ in one defect, the work that is put through both, and the decisions that the claim
foretells. It is data: the experiment runs any of them, and a new blow-up is a new folder under `scenarios/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..analysis.decision import Decision, Measure, Plan
from .load import Mix, Request

__all__ = ["BROKEN", "FIXED", "Scenario", "Upstream", "Workload"]

BROKEN = "broken"
FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class Upstream:
    """What the simulated upstream sends to each stream.

    events             number of events; None: it never ends by itself
    chunk_bytes        size of an event
    chunks_per_second  its pace for each stream
    """

    chunk_bytes: int
    chunks_per_second: float
    events: int | None = None

    def model(self, seed: int) -> str:
        """The name of the model that makes the simulator do this."""
        events = "inf" if self.events is None else self.events
        return f"sim:events={events},size={self.chunk_bytes},pace={self.chunks_per_second:g},seed={seed}"


@dataclass(frozen=True, slots=True)
class Workload:
    """What is put through a subject in each round.

    seconds              the least length of a round; it is prolonged where readings come in slowly
    transient_seconds    beginning of a round that is not judged: socket and transport buffers fill, that is no growth
    send_buffer_bytes    SO_SNDBUF of the subject's listening socket. Left alone, the kernel takes 1.5 MiB of each stream, and a
                         round would end before the service's own buffers fill
    """

    upstream: Upstream
    mix: Mix
    seconds: float = 2.5
    transient_seconds: float = 1.0
    send_buffer_bytes: int = 32 * 1024


@dataclass(frozen=True)
class Scenario:
    """A known blow-up with its fix.

    name        as in `diagnostics verify NAME`
    claim       what is wrong in the broken app and right in the fixed one, in a paragraph
    apps        side -> ASGI app as `module:attribute`; each reads UPSTREAM_BASE_URL (ends in /v1) from the environment
    expected    side -> the decision that the claim foretells
    least       measure -> the least growth that matters, in the measure's unit; a measure that is missing is not judged
    source      end of the path of the app files, to find the app's own lines in a profile
    """

    name: str
    claim: str
    apps: Mapping[str, str]
    expected: Mapping[str, Decision]
    workload: Workload
    least: Mapping[Measure, float]
    source: str
    plan: Plan = field(default_factory=Plan)
    path: str = "/v1/chat/completions"
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def summary(self) -> str:
        """The claim's first sentence."""
        return " ".join(self.claim.split()).partition(". ")[0].rstrip(".") + "."

    def request(self, seed: int) -> Request:
        """What each client sends."""
        return Request.chat(self.path, self.workload.upstream.model(seed))
