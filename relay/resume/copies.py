"""How far the logs of this process are copied to where other processes find them, and what is to be copied next. Sans-IO.

The law of this file. A log is behind from the moment in which it gets an event, or ends, until that was handed over for copying
(`take`). What was handed over counts as copied; where that does not come true, `copied_up_to` tells, and the log is behind
again. So nothing has to be done for a log whose copy succeeds, as nearly all do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from .log import StreamLog

__all__ = ["BETWEEN", "STREAM_BYTES", "Copied", "Copies"]

# In one round trip: events of one stream, and of all together.
STREAM_BYTES: Final = 128 * 1024
ROUND_BYTES: Final = 1024 * 1024
# Between two events of a copy. None has it, since it is where an event ends (numbering.py).
BETWEEN: Final = b"\n\n"


class Copied(NamedTuple):
    """Events of one stream to be stored.

    first    the number of the oldest event that is kept
    number   that of the first of these, and `last` that of the last; the one before `number` where there are none
    over     where the last of these is the stream's last, `ok` or `failed`; else ""
    events   these, with BETWEEN between two
    """

    stream: str
    caller: str
    first: int
    number: int
    last: int
    over: str
    events: bytes


@dataclass(slots=True)
class _Copy:
    """How far a log is copied: the number of the last event that is; its end is, too; nothing more is ever copied."""

    last: int = 0
    over: bool = False
    cut_off: bool = False


class Copies:
    """The copies of this process's logs. For one event loop only.

    behind   the logs of which something is to be copied, an ordered set
    """

    def __init__(self) -> None:
        self.behind: dict[StreamLog, None] = {}
        self._copies: dict[StreamLog, _Copy] = {}

    def logs(self) -> list[StreamLog]:
        """The logs of which anything was copied."""
        return list(self._copies)

    def is_behind(self, log: StreamLog) -> None:
        """There is something to be copied."""
        copy = self._copies.get(log)
        log.told = True
        if copy is None or not copy.cut_off:
            self.behind[log] = None

    def lost(self) -> None:
        """The copies may have lost anything, also ends that were copied: each log is to be looked at again."""
        for copy in self._copies.values():
            copy.over = False
        self.again()

    def again(self) -> None:
        """All logs whose end is not copied are behind, so that their copies do not expire."""
        for log, copy in self._copies.items():
            if not copy.over:
                self.is_behind(log)

    def forget(self, log: StreamLog) -> None:
        """The log is kept no more."""
        self.behind.pop(log, None)
        self._copies.pop(log, None)

    def take(self) -> tuple[list[StreamLog], list[Copied]]:
        """What is to be copied next, as much as fits into one round trip, with its logs."""
        logs, parts, unfinished, size = [], [], [], 0
        behind = iter(self.behind)
        for log in behind:
            part = self._part(log)
            logs.append(log)
            parts.append(part)
            log.told = part.last < log.last
            if log.told:
                unfinished.append(log)
            size += len(part.events)
            if size > ROUND_BYTES:
                break
        self.behind = dict.fromkeys((*behind, *unfinished))
        return logs, parts

    def copied_up_to(self, log: StreamLog, last: int) -> None:
        """The copy of a log ends with another event than was handed over; -1: others have ended the stream."""
        copy = self._copies.get(log)
        if copy is None:
            return  # it was forgotten meanwhile
        copy.last, copy.over, copy.cut_off = last, False, last < 0
        if copy.cut_off:
            self.behind.pop(log, None)
        else:
            self.is_behind(log)

    def _part(self, log: StreamLog) -> Copied:
        copy = self._copies.get(log)
        if copy is None:
            copy = self._copies[log] = _Copy()
        first, last = log.first, log.last
        after = max(copy.last, first - 1)
        events = log.read(after, STREAM_BYTES) if after < last else []
        copy.last = after + len(events)
        over = ("failed" if log.failed else "ok") if log.is_over and copy.last == last else ""
        copy.over = bool(over)
        return Copied(log.id, log.caller, first, after + 1, copy.last, over, BETWEEN.join(events))
