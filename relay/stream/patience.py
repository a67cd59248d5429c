"""How long a stream may wait, and for whom: a pure state machine, asked once in each sweep.

The law of this file. The hot path starts no timers, it counts: bytes that came, events with data in them, bytes that went. A
sweep compares the counts with those of the sweep before; where one has not moved, its clock runs. A clock's start is the sweep
that last saw the count move, so that a time-out is never early, and late by the time between two looks at most; `write` by
twice that, since it is not asked what waits for a client while events are written to it.

While the stream waits for its client, the upstream's clocks stand: its silence is then our doing.

| verdict | when |
|---|---|
| `total` | the stream is as old as it may get |
| `write` | bytes wait for the client, and it took none |
| `read` | the upstream sent no byte |
| `idle` | the upstream sent no event (comments, perhaps) |
| `heartbeat` | the upstream sent no byte, and neither did we |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Limits", "Patience", "Progress", "Verdict"]

Verdict = Literal["total", "write", "read", "idle", "heartbeat"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. 0 for `idle`, `total` and `heartbeat`: never."""

    read: float
    write: float
    idle: float = 0.0
    total: float = 0.0
    heartbeat: float = 0.0

    @property
    def shortest(self) -> float:
        return min(seconds for seconds in (self.read, self.write, self.idle, self.total, self.heartbeat) if seconds)


class Progress(NamedTuple):
    """A stream's counts at one moment. `reading`: the upstream has answered. `unsent`: bytes that the client has not
    taken, None where nothing waits for it."""

    bytes_in: int
    events_in: int
    bytes_out: int
    reading: bool
    unsent: int | None


class Patience:
    """What one stream has been waiting for. `now` is monotonic seconds everywhere."""

    __slots__ = ("_beat", "_began", "_event", "_events_in", "_heard", "_in", "_limits", "_out", "_taken", "_unsent")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._began = self._heard = self._event = self._beat = self._taken = now
        self._in = self._events_in = self._out = 0
        self._unsent: int | None = None

    def moved(self, now: float, bytes_in: int, events_in: int) -> Verdict | None:
        """As `look`, where it is known that events have come and were written: no clock runs then but for `total`.

        The next `look` finds that bytes went out, which starts the client's clock.
        """
        self._heard = self._event = self._beat = now
        self._in, self._events_in = bytes_in, events_in
        total = self._limits.total
        return "total" if total and now - self._began >= total else None

    def look(self, now: float, progress: Progress) -> Verdict | None:
        """What to do about the stream now; the first verdict of the table that holds."""
        limits = self._limits
        bytes_in, events_in, bytes_out, reading, unsent = progress
        if limits.total and now - self._began >= limits.total:
            return "total"
        waits = unsent is not None
        if not waits or unsent != self._unsent or bytes_out != self._out:
            self._taken = now
        self._unsent, self._out = unsent, bytes_out
        if now - self._taken >= limits.write:
            return "write"
        if waits or bytes_in != self._in:
            self._heard = self._beat = now
        if waits or events_in != self._events_in:
            self._event = now
        self._in, self._events_in = bytes_in, events_in
        if reading and now - self._heard >= limits.read:
            return "read"
        if reading and limits.idle and now - self._event >= limits.idle:
            return "idle"
        if limits.heartbeat and now - self._beat >= limits.heartbeat:
            self._beat = now
            return "heartbeat"
        return None
