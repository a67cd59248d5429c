"""All that is measured of a peer, each by its name: loads, memory of streams that stay, latency, life cycle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from . import holding, latency
from .loads import LOADS, SHORT, Load
from .measure import measure
from .peers import Serving
from .traffic import Traffic

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
        return self.peers is None or peer.partition("@")[0] in self.peers


def _load(load: Load) -> Case:
    return Case(load.title, lambda serving, traffic: vars(measure(serving, load, traffic)), room=load.streams)


CASES: dict[str, Case] = {
    **{name: _load(load) for name, load in LOADS.items()},
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
for name in ("hundred", "five_thousand"):
    CASES[name] = replace(CASES[name], peers=FEW)
SHORT_CASES = {name: _load(load) for name, load in SHORT.items()}
