"""The data type of a scenario: a falsifiable claim about memory.

A scenario is two small services that differ in one defect, the workload of both, and the decisions that the claim predicts.
It is data: the experiment runs any of them, and a new blow-up is a new folder under `scenarios/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ..analysis.decision import Decision, Measure, Plan
from .clients.load import Request
from .clients.mix import Mix

__all__ = ["BROKEN", "FIXED", "RELAY", "OwnRelay", "Scenario", "Upstream", "Workload"]

BROKEN = "broken"
FIXED = "fixed"
# The side of the user's own relay, beside the scenario's two apps.
RELAY = "relay"


@dataclass(frozen=True, slots=True)
class Upstream:
    """The simulated upstream's behaviour on each stream.

    events             number of events; None: it never ends by itself
    chunk_bytes        size of an event
    chunks_per_second  events per second of each stream
    first_seconds      delay of the first byte
    fault              the simulator's name of a fault (`endless@20`); empty: none
    """

    chunk_bytes: int
    chunks_per_second: float
    events: int | None = None
    first_seconds: float = 0.05
    fault: str = ""

    def model(self, seed: int) -> str:
        """The model name that selects this behaviour in the simulator."""
        events = "inf" if self.events is None else self.events
        fault = f",fault={self.fault}" if self.fault else ""
        return (
            f"sim:events={events},size={self.chunk_bytes},pace={self.chunks_per_second:g}"
            f",first={self.first_seconds:g}{fault},seed={seed}"
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """The load on a subject in each round.

    seconds              the least length of a round; it is prolonged where readings are slow
    transient_seconds    beginning of a round that is not judged: socket and transport buffers fill, which is no growth
    send_buffer_bytes    SO_SNDBUF of the subject's listening socket. By default the kernel buffers 1.5 MiB of each stream, and
                         a round would end before the service's own buffers fill
    light                a lighter load before that of each round, for the measure `load`
    least_ended          streams that must have ended in a round, so that noise per stream is below the least growth: where
                         they are fewer, further ones come and leave after a few events
    least_events         events that the clients must have received for each open stream; a service that serves nothing has
                         flat memory, too
    may_reject, may_end  whether refusing clients (429, 503), or ending a stream whose upstream does not end, is part of the
                         fix; else it is a failure of the service
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
    """The user's own relay as a third subject of a scenario, in any language.

    command      its words, with `{port}` and optionally `{upstream}` (a base URL that ends in /v1)
    environment  its environment variables; `{upstream}` is replaced here, too, and `{otlp}`, the URL of an OTLP receiver
    source       a part of the path of its own files, to find its lines in a profile
    request      its clients' request, where it differs from the scenario's
    publish      the path to which events to broadcast are POSTed, of the upstream's size and pace
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
    claim       the defect of the broken app and its fix, in a paragraph
    apps        side -> ASGI app as `module:attribute`; each reads UPSTREAM_BASE_URL (ends in /v1) from the environment
    expected    side -> the decision that the claim predicts
    options     side -> further options of `proof.subjects.serve` for the app; the user's own app gets none of them
    environment environment variables of both apps
    least       measure -> the least growth that matters, in the measure's unit; a missing measure is not judged
    source      a part of the path of the apps' files, to find their lines in a profile
    relay       the user's own relay beside the two apps, under the same workload
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
        """Whether the exit time is judged: each round ends with the process, and no other measure is judged."""
        return Measure.EXIT in self.least

    @property
    def summary(self) -> str:
        """The claim's first sentence."""
        return " ".join(self.claim.split()).partition(". ")[0].rstrip(".") + "."

    def with_relay(self, relay: OwnRelay) -> Scenario:
        """The same scenario with the user's own relay beside its apps, which has to be BOUNDED."""
        apps = {**self.apps, RELAY: " ".join(relay.command)}
        return replace(self, apps=apps, expected={**self.expected, RELAY: Decision.BOUNDED}, relay=relay)

    def source_of(self, side: str) -> str:
        """A part of the path of the side's own files."""
        return self.relay.source if side == RELAY and self.relay is not None else self.source

    def request(self, seed: int, side: str = "") -> Request:
        """The request of each client of a side."""
        if side == RELAY and self.relay is not None and self.relay.request is not None:
            return self.relay.request
        return Request.chat(self.path, self.workload.upstream.model(seed))
