"""A stream's time-outs and heartbeats: a pure state machine, called once in each sweep.

The law of this file. The hot path starts no timers, it only counts: bytes in, chunks in with data, bytes out. A sweep compares
the counts with those of the sweep before. A time-out runs from the last sweep that saw its count move, so that it is never
early, and late by the time between two sweeps at most; `write` by twice that, since the bytes that wait for a client are
not looked at while events flow to it (`moved`).

While bytes wait for the client, the upstream's time-outs do not run: the relay has paused it.

| verdict | when |
|---|---|
| `total` | the stream is as old as it may get |
| `write` | bytes wait for the client, and it took none for `write` seconds |
| `read` | the upstream sent no byte for `read` seconds |
| `idle` | the upstream sent no event, though perhaps comments, for `idle` seconds |
| `heartbeat` | neither the upstream nor the relay sent a byte for `heartbeat` seconds |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Limits", "Patience", "Progress", "Verdict"]

Verdict = Literal["total", "write", "read", "idle", "heartbeat"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; `idle`, `total` and `heartbeat` may be 0, for never."""

    read: float
    write: float
    idle: float = 0.0
    total: float = 0.0
    heartbeat: float = 0.0

    @property
    def shortest(self) -> float:
        return min(seconds for seconds in (self.read, self.write, self.idle, self.total, self.heartbeat) if seconds)


class Progress(NamedTuple):
    """A stream's counts at one moment.

    events_in   chunks with data in them, of which each ends an event or comes closer to it
    reading     the upstream has answered
    unsent      bytes that the client has not taken; None where none wait for it
    """

    bytes_in: int
    events_in: int
    bytes_out: int
    reading: bool
    unsent: int | None


class Patience:
    """The counts and times of one stream as the last sweep left them. `now` is monotonic seconds everywhere."""

    __slots__ = ("_beat", "_began", "_event", "_events_in", "_heard", "_in", "_limits", "_out", "_taken", "_unsent")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._began = self._heard = self._event = self._beat = self._taken = now
        self._in = self._events_in = self._out = 0
        self._unsent: int | None = None

    def moved(self, now: float, bytes_in: int, events_in: int) -> Verdict | None:
        """`look` for a stream that is known to have relayed events since: of the time-outs only `total` can have passed.

        The next `look` sees that bytes went out, and runs the client's time-out from there.
        """
        self._heard = self._event = self._beat = now
        self._in, self._events_in = bytes_in, events_in
        total = self._limits.total
        return "total" if total and now - self._began >= total else None

    def look(self, now: float, progress: Progress) -> Verdict | None:
        """The first verdict of the table that holds now; None where none does."""
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
