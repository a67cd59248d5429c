"""What the clients do, and for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """`streams` at once, each of `events`.

    pace      events per second of each stream; 0: a burst, as fast as it is taken
    opening   seconds over which the streams are opened; CPU of a paced load is measured from then to its end, since opening
              one stream costs as much as hundreds of its events
    """

    title: str
    streams: int
    events: int
    pace: float
    opening: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it takes where nothing is in the way."""
        return self.opening + self.events / self.pace if self.pace else 0.0


LOADS = {
    "paced": Load("100 streams, 20 events/s each", 100, 160, 20.0, opening=1.0),
    "burst": Load("32 streams, as fast as they are taken", 32, 60_000, 0.0),
    "thousand": Load("1,000 streams, 20 events/s each", 1000, 160, 20.0, opening=3.0),
    "hundred": Load("100 streams, 50 events/s each", 100, 400, 50.0, opening=1.0),
    "five_thousand": Load("5,000 streams, 1 event/s each", 5000, 20, 1.0, opening=12.0),
}
# Of one round among many, on processes that stay: the opening is short, the machine's noise is the same for all.
SHORT = {
    "paced": Load("100 streams, 20 events/s each, short", 100, 120, 20.0, opening=1.5),
    "burst": LOADS["burst"],
    "thousand": Load("1,000 streams, 20 events/s each, short", 1000, 120, 20.0, opening=3.0),
}
