"""What the clients do, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Load:
    """`streams` at once, each of `events`.

    pace      events per second of each stream; 0: a burst, as fast as it is taken
    opening   seconds over which the streams are opened; CPU of a paced load is measured from then to its end, since opening
              one stream costs as much as hundreds of its events
    again     seconds for which each of the `streams` clients opens one after the other
    whole     each answer is read to its very end, and its connection used again
    """

    title: str
    streams: int
    events: int
    pace: float
    opening: float = 0.0
    again: float = 0.0
    whole: bool = False

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
# Measured from the first connect to the last end. Connections are kept and used again, as a gateway or a client library does.
# A completion is 150 events at 30 a second, as a chat model writes them; 200 of them begin in a minute for each core that
# the peer has, which is one: 17 are open at a time. That is a small service, where what a process spends by the clock counts
# most. Ten times as many, 5,000 events a second, keep a Python peer's core about a third busy.
WHOLE = {
    "paced_whole": replace(LOADS["paced"], whole=True),
    "short": Load("32 clients, one stream of 20 events after the other", 32, 20, 0.0, again=6.0, whole=True),
    "short_connecting": Load("the same, a connection for each stream", 32, 20, 0.0, again=6.0),
    "completion": Load("200 streams a minute, 150 events at 30/s each", 100, 150, 30.0, opening=30.0, whole=True),
    "completion_2000": Load(
        "2,000 streams a minute, 150 events at 30/s each", 500, 150, 30.0, opening=15.0, whole=True
    ),
    "storm": Load(
        "1,000 clients that connect within one second, 200 events at 20/s each",
        1000,
        200,
        20.0,
        opening=1.0,
        whole=True,
    ),
}
# Of one round among many, on processes that stay: the opening is short, the machine's noise is the same for all.
SHORT = {
    "paced": Load("100 streams, 20 events/s each, short", 100, 120, 20.0, opening=1.5),
    "burst": LOADS["burst"],
    "thousand": Load("1,000 streams, 20 events/s each, short", 1000, 120, 20.0, opening=3.0),
    "paced_whole": Load("100 streams, 20 events/s each, short", 100, 120, 20.0, opening=1.5, whole=True),
    "short": Load("32 clients, one stream of 20 events after the other, short", 32, 20, 0.0, again=2.0, whole=True),
    "completion": Load("200 streams a minute, 150 events at 30/s each, short", 17, 150, 30.0, opening=5.0, whole=True),
    "completion_2000": Load(
        "2,000 streams a minute, 150 events at 30/s each, short", 167, 150, 30.0, opening=5.0, whole=True
    ),
}
