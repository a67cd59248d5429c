"""All that is measured of a peer, each by its name: loads, memory of streams that stay, latency, life cycle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from . import holding, latency
from .beside import beside
from .loads import LOADS, SHORT, WHOLE, Load
from .measure import measure
from .peers import Serving
from .traffic import Traffic
from .whole import at_start, whole

Figures = dict[str, float]

# What the others are not asked for: it would take them minutes, or says nothing about them.
FEW = ("nginx", "bare", "relay")


@dataclass(frozen=True)
class Case:
    """One measurement.

    room         how many streams the peer must take at once
    peers        which are asked; None: all
    most_rounds  what hardly varies is not measured in every round
    """

    title: str
    run: Callable[[Serving, Traffic], Figures]
    room: int = 1000
    peers: tuple[str, ...] | None = None
    most_rounds: int = 100

    def concerns(self, peer: str) -> bool:
        """`peer` is a name that `peer_named` takes."""
        return self.peers is None or peer.replace("@", " ").split()[0] in self.peers


def _load(load: Load) -> Case:
    return Case(load.title, lambda serving, traffic: vars(measure(serving, load, traffic)), room=load.streams)


def _whole(load: Load) -> Case:
    return Case(load.title, lambda serving, traffic: whole(serving, load, traffic), room=load.streams)


CASES: dict[str, Case] = {
    **{name: _whole(load) for name, load in WHOLE.items()},
    **{name: _load(load) for name, load in LOADS.items()},
    "start": Case("resident memory once started", at_start, peers=FEW, most_rounds=2),
    "idle_1000": Case("1,000 idle streams", partial(holding.idle, streams=1000), most_rounds=2),
    "idle_5000": Case("5,000 idle streams", partial(holding.idle, streams=5000), room=5000, peers=FEW, most_rounds=2),
    "slow": Case(
        "clients that read 16 KiB/s of 20 MB",
        partial(holding.slow, rate=holding.SLOW_BYTES_PER_SECOND),
        room=200,
        most_rounds=2,
    ),
    "never": Case("clients that never read", partial(holding.slow, rate=0), room=200, peers=FEW, most_rounds=2),
    "half_load": Case("latency at half load", latency.half_load, peers=FEW),
    "leaving": Case("clients that leave", latency.leaving, peers=FEW),
}
for streams in (0, 100, 1000, 5000):
    CASES[f"monitor_{streams}"] = Case(
        f"the monitor beside {streams:,} streams", partial(beside, streams=streams), room=streams, peers=("relay",)
    )
for name in ("hundred", "five_thousand", "completion", "completion_2000"):
    CASES[name] = replace(CASES[name], peers=FEW)
CASES["storm"] = replace(CASES["storm"], peers=(*FEW, "go"))
SHORT_CASES = {name: (_whole if name in WHOLE else _load)(load) for name, load in SHORT.items()}
