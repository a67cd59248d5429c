"""What a scenario is: a claim about memory that can turn out to be wrong.

A scenario is two small services that differ in one defect, the work that is put through both, and the decisions that the claim
foretells. It is data: the experiment runs any of them, and a new blow-up is a new folder under `scenarios/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ..analysis.decision import Decision, Measure, Plan
from .clients.address import Request
from .clients.mix import Mix

__all__ = ["BROKEN", "FIXED", "RELAY", "OwnRelay", "Scenario", "Upstream", "Workload"]

BROKEN = "broken"
FIXED = "fixed"
# A relay of one's own, beside the scenario's two apps.
RELAY = "relay"


@dataclass(frozen=True, slots=True)
class Upstream:
    """What the simulated upstream sends to each stream.

    events             number of events; None: it never ends by itself
    chunk_bytes        size of an event
    chunks_per_second  its pace for each stream
    first_seconds      until its first byte
    fault              what goes wrong, in the simulator's words (`endless@20`); empty: nothing
    """

    chunk_bytes: int
    chunks_per_second: float
    events: int | None = None
    first_seconds: float = 0.05
    fault: str = ""

    def model(self, seed: int) -> str:
        """The name of the model that makes the simulator do this."""
        events = "inf" if self.events is None else self.events
        fault = f",fault={self.fault}" if self.fault else ""
        return (
            f"sim:events={events},size={self.chunk_bytes},pace={self.chunks_per_second:g}"
            f",first={self.first_seconds:g}{fault},seed={seed}"
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """What is put through a subject in each round.

    seconds              the least length of a round; it is prolonged where readings come in slowly
    transient_seconds    beginning of a round that is not judged: socket and transport buffers fill, that is no growth
    send_buffer_bytes    SO_SNDBUF of the subject's listening socket. Left alone, the kernel takes 1.5 MiB of each stream, and a
                         round would end before the service's own buffers fill
    light                a lighter load before that of each round, for the measure `load`
    least_ended          streams that must have ended in a round, so that noise is below what matters of each: where they are
                         fewer, further ones come and leave after a few events
    least_events         events that the clients must have seen for each open stream; a service that serves nothing is flat, too
    may_reject, may_end  to turn clients away (429, 503), to end a stream whose upstream does not end: a failure of the service
                         but where this is the fix
    """

    upstream: Upstream
    mix: Mix
    seconds: float = 2.5
    transient_seconds: float = 1.0
    send_buffer_bytes: int = 32 * 1024
    light: Mix | None = None
    least_ended: int = 0
    least_events: int = 1
    may_reject: bool = False
    may_end: bool = False

    def __post_init__(self) -> None:
        if self.light is not None and self.light.streams >= self.mix.streams:
            raise ValueError(f"the light load has {self.light.streams} streams, the load itself {self.mix.streams}")


@dataclass(frozen=True, slots=True)
class OwnRelay:
    """A relay that is put under a scenario's work as a third subject, whatever it is written in.

    command      its words, with `{port}` and, where it is told so, `{upstream}` (a base URL that ends in /v1)
    environment  what it finds in its environment; `{upstream}` is filled in here, too, and `{otlp}`, where traces are taken
    source       a part of the path of its own files, to find its lines in a profile
    request      what its clients send where it is not what the scenario's clients send
    publish      the path at which it takes what is broadcast: events of the upstream's size and pace are sent there (POST)
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    source: str = ""
    request: Request | None = None
    publish: str = ""


@dataclass(frozen=True)
class Scenario:
    """A known blow-up with its fix.

    name        as in `diagnostics verify NAME`
    claim       what is wrong in the broken app and right in the fixed one, in a paragraph
    apps        side -> ASGI app as `module:attribute`; each reads UPSTREAM_BASE_URL (ends in /v1) from the environment
    expected    side -> the decision that the claim foretells
    options     side -> further options of `proof.serve` that belong to the app; an app of one's own gets none of them
    environment what both apps find in their environment
    least       measure -> the least growth that matters, in the measure's unit; a measure that is missing is not judged
    source      end of the path of the app files, to find the app's own lines in a profile
    relay       a relay of one's own beside the two apps, under the same work
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
    options: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    relay: OwnRelay | None = None

    def __post_init__(self) -> None:
        if self.judges_exit and len(self.least) > 1:
            raise ValueError(
                f"{self.name}: a process that is told to exit has no other measures, not {set(self.least)}"
            )
        if Measure.LOAD in self.least and self.workload.light is None:
            raise ValueError(f"{self.name}: `load` is measured against a light load, and there is none")

    @property
    def judges_exit(self) -> bool:
        """Whether a round ends with the process: such a scenario judges nothing else."""
        return Measure.EXIT in self.least

    @property
    def summary(self) -> str:
        """The claim's first sentence."""
        return " ".join(self.claim.split()).partition(". ")[0].rstrip(".") + "."

    def with_relay(self, relay: OwnRelay) -> Scenario:
        """The same scenario with a relay of one's own beside its apps: it has to be BOUNDED."""
        apps = {**self.apps, RELAY: " ".join(relay.command)}
        return replace(self, apps=apps, expected={**self.expected, RELAY: Decision.BOUNDED}, relay=relay)

    def source_of(self, side: str) -> str:
        """A part of the path of the side's own files."""
        return self.relay.source if side == RELAY and self.relay is not None else self.source

    def request(self, seed: int, side: str = "") -> Request:
        """What each client of a side sends."""
        if side == RELAY and self.relay is not None and self.relay.request is not None:
            return self.relay.request
        return Request.chat(self.path, self.workload.upstream.model(seed))
