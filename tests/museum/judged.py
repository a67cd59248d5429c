"""What a visit comes to: right or wrong, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

from .table import LEAKY, Side
from .visit import Visit

RIGHT, WRONG, MISSED = "right", "wrong", "missed"


@dataclass(frozen=True)
class Judged:
    """outcome          of a leak: RIGHT where kind and culprit are, WRONG where something else is accused, MISSED where
                     nothing is; of anything else: RIGHT where nothing is accused, else WRONG
    kind             the verdict that counts, and how sure it was
    kind_right       whether that verdict is one that tells the kind rightly
    rank             the place among the first three at which the culprit is named; None: it is not
    alarm_seconds    from the start of the work to the first alarm of medium or high confidence
    named_seconds    to when the culprit was named
    """

    outcome: str
    kind: str
    kind_right: bool
    rank: int | None
    alarm_seconds: float | None
    named_seconds: float | None


def judge(side: Side, visit: Visit) -> Judged:
    accusing = [look for look in visit.looks if look.accuses]
    alarm_seconds = accusing[0].seconds if accusing else None
    # The last alarm counts: it has heard what was captured meanwhile. Where there is none, what was said at the end.
    last = accusing[-1] if accusing else visit.last
    kind = f"{last.word} ({last.confidence})" if last else "no verdict"
    if side.side != LEAKY:
        return Judged(WRONG if accusing else RIGHT, kind, not accusing, None, alarm_seconds, None)
    kind_right = bool(accusing) and last is not None and last.word in side.accepted
    rank, named_seconds = _named(side, visit)
    outcome = RIGHT if kind_right and rank is not None else WRONG if accusing else MISSED
    return Judged(outcome, kind, kind_right, rank, alarm_seconds, named_seconds if rank is not None else None)


def _named(side: Side, visit: Visit) -> tuple[int | None, float | None]:
    """The sentence of an alarm that names the culprit, else the capture that was typed."""
    rank = visit.shown.rank(side.culprit)
    if rank is not None:
        return rank, visit.shown_seconds
    for look in visit.looks:
        if look.alarm and (rank := look.named.rank(side.culprit)) is not None:
            return rank, look.seconds
    return None, None
