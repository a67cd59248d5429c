"""What is to be sent, in which order, when a try is due again, and when to give up. Pure: time and chance are given.

The order: what a rule or a worker's end has left (nobody can take it again), then what the verdict has asked for, then what
people have asked for; of the same urgency the oldest first. The queue is bounded: when one more would wait than `most`, the
least urgent one, the oldest of these, is dropped, and counted. A try that fails is made again after 5 s, 10 s, 20 s and so on
up to an hour, each a quarter shorter or longer by chance, so that the monitors of a fleet do not come back at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal, get_args

__all__ = ["ENDED", "INCIDENT", "ON_REQUEST", "VERDICT", "Outcome", "Queue", "Quota", "Upload", "backoff", "urgency_of"]

INCIDENT, VERDICT, ON_REQUEST = 0, 1, 2
Outcome = Literal["sent", "failed", "dropped", "lost"]
ENDED: Final[tuple[Outcome, ...]] = get_args(Outcome)

_FIRST_SECONDS = 5.0
_LONGEST_SECONDS = 3600.0
_DAY = 86_400.0


def urgency_of(by: str) -> int:
    """By who has asked for a capture, as its manifest says: "rule NAME", "the verdict", or anybody."""
    return INCIDENT if by.startswith("rule ") else VERDICT if by == "the verdict" else ON_REQUEST


def backoff(tries: int, chance: float) -> float:
    """Seconds until the next try after `tries` that have failed; `chance`: from 0 to 1, one half is the middle."""
    return float(min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** min(tries - 1, 32)) * (0.75 + chance / 2))


@dataclass
class Upload:
    """One capture, or one recording, on its way.

    what      "capture" (its files are in the local store) or "recording" (its files are `paths`)
    end       of a recording: how the worker ended, as WorkerEnd.to_json says
    created   of the capture or the end, wall clock
    state     waiting, or how it has ended: sent, failed (out of tries), dropped (the queue was full), lost (its files were
              deleted before it was sent)
    due       wall clock of the next try
    done      names of the files that the store has taken
    """

    id: str
    what: str
    worker: str
    urgency: int
    created: float
    bytes: int
    paths: list[str] = field(default_factory=list)
    end: dict[str, Any] | None = None
    state: str = "waiting"
    tries: int = 0
    due: float = 0.0
    error: str | None = None
    done: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """What the captures list says of it."""
        return {"state": self.state, "tries": self.tries, "error": self.error}


# The types that a file of uploads must have, by field; a file of another version is not half understood.
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "id": (str,), "what": (str,), "worker": (str,), "urgency": (int,), "created": (int, float), "bytes": (int,),
    "paths": (list,), "end": (dict, type(None)), "state": (str,), "tries": (int,), "due": (int, float),
    "error": (str, type(None)), "done": (list,),
}  # fmt: skip


class Queue:
    """All uploads, those that have ended included.

    most        how many may wait
    tries       how often each is tried
    remembered  how many that have ended are remembered, for the captures list and so that none is sent twice
    """

    def __init__(self, most: int, tries: int, remembered: int = 300) -> None:
        self.most = most
        self.tries = tries
        self.remembered = remembered
        self._uploads: dict[str, Upload] = {}

    def get(self, upload_id: str) -> Upload | None:
        return self._uploads.get(upload_id)

    def waiting(self) -> list[Upload]:
        """Those that wait, in the order in which they are sent."""
        waiting = (upload for upload in self._uploads.values() if upload.state == "waiting")
        return sorted(waiting, key=lambda upload: (upload.urgency, upload.created, upload.id))

    def add(self, upload: Upload) -> Upload | None:
        """Let one more wait. Returns the one that was dropped for it, if any: it may be the new one."""
        self._uploads[upload.id] = upload
        self._forget()
        waiting = self.waiting()
        if len(waiting) <= self.most:
            return None
        least = max(each.urgency for each in waiting)
        dropped = next(each for each in waiting if each.urgency == least)
        dropped.state = "dropped"
        dropped.error = f"{self.most} more urgent or newer ones wait"
        return dropped

    def next(self, now: float, left: float) -> Upload | None:
        """The upload to try now, of at most `left` bytes; None where none is due."""
        due = (upload for upload in self.waiting() if upload.due <= now and upload.bytes <= left)
        return next(due, None)

    def failed(self, upload: Upload, now: float, error: str, chance: float) -> bool:
        """A try has failed. Returns whether that was the last one."""
        upload.tries += 1
        upload.error = error
        if upload.tries >= self.tries:
            upload.state = "failed"
            return True
        upload.due = now + backoff(upload.tries, chance)
        return False

    def _forget(self) -> None:
        ended = sorted(
            (upload for upload in self._uploads.values() if upload.state != "waiting"), key=lambda each: each.created
        )
        for upload in ended[: -self.remembered]:
            del self._uploads[upload.id]

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(upload) for upload in self._uploads.values()]

    def restore(self, uploads: Iterable[Mapping[str, Any]]) -> None:
        """Take over what `to_json` gave. Raises ValueError where it is anything else."""
        for each in uploads:
            if not isinstance(each, Mapping) or each.keys() != _TYPES.keys():
                raise ValueError("an upload has other fields than this version writes")
            for name, types in _TYPES.items():
                if not isinstance(each[name], types) or isinstance(each[name], bool):
                    raise ValueError(f"the {name} of an upload is {each[name]!r:.60}")  # noqa: TRY004  # as any other damage
            self.add(Upload(**each))


assert _TYPES.keys() == {each.name for each in fields(Upload)}


@dataclass
class Quota:
    """Bytes that a store may be sent in a day (UTC). `limit` 0: as many as there are."""

    limit: int
    day: int = 0
    used: int = 0

    def left(self, now: float) -> float:
        """Bytes that may be sent at `now`, wall clock; infinity without a limit."""
        self._turn(now)
        return self.limit - self.used if self.limit else float("inf")

    def spend(self, now: float, count: int) -> None:
        self._turn(now)
        self.used += count

    def fits(self, count: int) -> bool:
        """Whether an upload of so many bytes can be sent on any day."""
        return not self.limit or count <= self.limit

    def _turn(self, now: float) -> None:
        if int(now // _DAY) != self.day:
            self.day, self.used = int(now // _DAY), 0
