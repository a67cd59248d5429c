"""All logs of this process: bounds on each, on all together, and on how long an ended one is kept. Sans-IO.

The law of this file. All kept bytes, with those of unfinished events, stay below `max_bytes`. For room, ended logs go first,
the longest ended before others; then the oldest events of running ones. Of a log that is gone its id is remembered for
`keep_seconds` more, so that its client is told that it came too late (410), and not that there never was one (404).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..errors import BadRequestError, StreamExpiredError, StreamNotFoundError
from .ids import new_stream_id
from .log import StreamLog

__all__ = ["MAX_REMEMBERED", "Bounds", "Named", "StreamLogs", "check_place"]

# Ids of logs that are gone, each some 200 bytes.
MAX_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes include the overhead of each event.

    stream_bytes   kept of one stream
    max_bytes      kept of all streams
    keep_seconds   how long a stream is kept after its end
    """

    stream_bytes: int
    max_bytes: int
    keep_seconds: float


class Named(NamedTuple):
    """The stream of a response, and the `difference` of its numbers (ids.py)."""

    stream: str
    difference: int


class _Gone(NamedTuple):
    caller: str
    until: float


class StreamLogs:
    """All logs. For one event loop only. `now` is monotonic seconds everywhere.

    held      bytes of all logs and of unfinished events
    dropped   called with a log whose oldest events were dropped, or that was given up, for room
    grew      called with a log that has got events, unless it is `told`
    """

    def __init__(
        self,
        bounds: Bounds,
        dropped: Callable[[StreamLog], None] = lambda log: None,
        grew: Callable[[StreamLog], None] = lambda log: None,
    ) -> None:
        self.bounds = bounds
        self.held = 0
        self._stream_bytes, self._max_bytes = bounds.stream_bytes, bounds.max_bytes
        self._dropped = dropped
        self._grew = grew
        self._running: dict[str, StreamLog] = {}
        self._ended: dict[str, tuple[StreamLog, float]] = {}  # with the time when it goes; the longest ended first
        self._gone: dict[str, _Gone] = {}  # the longest gone first
        self._responses: dict[tuple[str, str], Named] = {}  # by caller and the upstream's id of a response
        self._named: dict[str, tuple[str, str]] = {}  # the keys of that, by stream id

    def __len__(self) -> int:
        return len(self._running) + len(self._ended)

    def running(self) -> tuple[StreamLog, ...]:
        return tuple(self._running.values())

    def begin(self, caller: str) -> StreamLog:
        """A new stream's log."""
        log = StreamLog(new_stream_id(), caller)
        self._running[log.id] = log
        return log

    def append(self, log: StreamLog, events: Sequence[bytes]) -> None:
        """Append events to a running log, and drop others for them where need be. Part of the hot path."""
        self.held += log.append(events)
        if log.held > self._stream_bytes or self.held > self._max_bytes:
            self._trim(log)
        if not log.told:
            self._grew(log)

    def charge(self, nbytes: int) -> None:
        """Count bytes that are held beside the logs' (negative: no longer)."""
        self.held += nbytes
        if self.held > self._max_bytes:
            self._shrink()

    def end(self, log: StreamLog, now: float, *, failed: bool) -> None:
        """The stream has ended: keep the log for `keep_seconds`."""
        if self._running.pop(log.id, None) is not None:
            self._ended[log.id] = (log, now + self.bounds.keep_seconds)
            log.end(failed=failed)

    def discard(self, log: StreamLog) -> None:
        """Remove a running log that no client has heard of."""
        if self._running.pop(log.id, None) is not None:
            self._release(log)
            log.end(failed=True)

    def name(self, log: StreamLog, response_id: str, difference: int) -> None:
        """The upstream calls this stream's response so; `difference` as in ids.py. The newer one of two has the name."""
        key = (log.caller, response_id)
        replaced = self._responses.get(key)
        if replaced is not None:
            del self._named[replaced.stream]
        self._responses[key] = Named(log.id, difference)
        self._named[log.id] = key

    def of_response(self, response_id: str, caller: str) -> Named | None:
        """The stream whose response the upstream calls so; None where none is known to this caller."""
        return self._responses.get((caller, response_id))

    def responses(self) -> dict[tuple[str, str], Named]:
        """The streams of all responses, by caller and the upstream's id."""
        return dict(self._responses)

    def get(self, stream_id: str, caller: str) -> StreamLog | None:
        """The log; None where there is none, or it is another caller's."""
        log = self._running.get(stream_id)
        if log is None:
            ended = self._ended.get(stream_id)
            log = ended[0] if ended is not None else None
        return log if log is not None and log.caller == caller else None

    def find(self, stream_id: str, caller: str, after: int) -> StreamLog:
        """The log, with all events after a number. Raises StreamNotFoundError, StreamExpiredError, BadRequestError."""
        log = self.get(stream_id, caller)
        if log is None:
            if self.is_gone(stream_id, caller):
                raise StreamExpiredError
            raise StreamNotFoundError
        check_place(log, after)
        return log

    def is_gone(self, stream_id: str, caller: str) -> bool:
        """Whether there was such a stream of this caller's, and its log is gone."""
        gone = self._gone.get(stream_id)
        return gone is not None and gone.caller == caller

    def tidy(self, now: float) -> None:
        """Remove the logs that ended too long ago, and forget ids that are gone for as long again."""
        while self._ended:
            stream_id, (_, until) = next(iter(self._ended.items()))
            if until > now:
                break
            self._remove(stream_id)
        while self._gone:
            stream_id, (_, until) = next(iter(self._gone.items()))
            if until > now:
                break
            del self._gone[stream_id]

    def _trim(self, log: StreamLog) -> None:
        if log.held > self._stream_bytes:
            while log and log.held > self._stream_bytes:
                self.held -= log.forget_oldest()
            self._dropped(log)
        self._shrink()

    def _shrink(self) -> None:
        most = self._max_bytes
        while self._ended and self.held > most:
            stream_id = next(iter(self._ended))
            log = self._ended[stream_id][0]
            self._remove(stream_id)
            self._dropped(log)
        for log in self.running():
            if self.held <= most:
                return
            if not log:
                continue
            while log and self.held > most:
                self.held -= log.forget_oldest()
            self._dropped(log)

    def _remove(self, stream_id: str) -> None:
        log, until = self._ended.pop(stream_id)
        self._release(log)
        self._gone[stream_id] = _Gone(log.caller, until + self.bounds.keep_seconds)
        if len(self._gone) > MAX_REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def _release(self, log: StreamLog) -> None:
        named = self._named.pop(log.id, None)
        if named is not None:
            del self._responses[named]
        while log:
            self.held -= log.forget_oldest()


def check_place(log: StreamLog, after: int) -> None:
    """Raise StreamExpiredError or BadRequestError where the log has not all events after a number."""
    match log.place(after):
        case "future":
            raise BadRequestError(
                f"the stream has no event {after}, its last one is {log.last}", param="starting_after"
            )
        case "dropped":
            raise StreamExpiredError
