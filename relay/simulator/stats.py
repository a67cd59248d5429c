"""The simulator's counts of its streams, for tests and experiments: GET /simulator/stats."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

__all__ = ["Stats"]


@dataclass(slots=True)
class Stats:
    """Counts since the start; started = open + finished + disconnected + aborted at any moment.

    A stream is a streamed answer, from its request on. `disconnected` streams ended because the client left, `aborted` ones by
    the fault in the model's name. `bytes_sent` are those of events, without HTTP's framing.
    """

    connections: int = 0
    requests: int = 0
    open: int = 0
    peak_open: int = 0
    started: int = 0
    finished: int = 0
    disconnected: int = 0
    aborted: int = 0
    events_sent: int = 0
    bytes_sent: int = 0
    last_traceparent: str | None = None

    def stream_started(self) -> None:
        self.started += 1
        self.open += 1
        self.peak_open = max(self.peak_open, self.open)

    def stream_ended(self, outcome: str) -> None:
        """`outcome` is one of finished, disconnected, aborted."""
        self.open -= 1
        setattr(self, outcome, getattr(self, outcome) + 1)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()
