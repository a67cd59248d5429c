"""Counts and logs the failures of a loop that must go on: each kind of failure the first time with its traceback, and again
with its count at each power of ten, so that they do not fill the log."""

from __future__ import annotations

import logging
from collections import Counter

__all__ = ["Failures", "Kinds", "is_due"]

log = logging.getLogger("diagnostics.monitor")

# Limit of kinds that are counted separately: a message may contain varying text.
_MAX_KINDS = 50
_OTHER = "others"


class Kinds:
    """How often each kind of failure has come, and when that is worth a line: at the first, the tenth, the hundredth time."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def known_as(self, kind: str) -> str:
        """What it is counted under."""
        return _OTHER if kind not in self.counts and len(self.counts) >= _MAX_KINDS else kind

    def count(self, kind: str) -> int:
        """One more of this kind; how many there have been."""
        kind = self.known_as(kind)
        self.counts[kind] += 1
        return self.counts[kind]


def is_due(count: int) -> bool:
    """Whether this number of failures is to be told: a power of ten."""
    return str(count).strip("0") == "1"


class Failures:
    """The failures of one loop; `what` names the failing step in log lines: "a look of the recorder"."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._kinds = Kinds()

    @property
    def counts(self) -> Counter[str]:
        return self._kinds.counts

    def failed(self, error: Exception) -> None:
        """Count `error`, and log it where due. To be called in the except block."""
        kind = self._kinds.known_as(repr(error)[:200])
        count = self._kinds.count(kind)
        if count == 1:
            log.error("%s failed, and the next one is due all the same", self.what, exc_info=error)
        elif is_due(count):
            log.error("%s has failed %d times: %s", self.what, count, kind)
