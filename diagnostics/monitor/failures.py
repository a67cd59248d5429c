"""Counts and logs the failures of a loop that must go on: each kind of failure the first time with its traceback, and again
with its count at each power of ten, so that they do not fill the log."""

from __future__ import annotations

import logging
from collections import Counter

__all__ = ["Failures"]

log = logging.getLogger("diagnostics.monitor")

# Limit of kinds that are counted separately: a message may contain varying text.
_MAX_KINDS = 50
_OTHER = "others"


class Failures:
    """The failures of one loop; `what` names the failing step in log lines: "a look of the recorder"."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.counts: Counter[str] = Counter()

    def failed(self, error: Exception) -> None:
        """Count `error`, and log it where due. To be called in the except block."""
        kind = repr(error)[:200]
        if kind not in self.counts and len(self.counts) >= _MAX_KINDS:
            kind = _OTHER
        self.counts[kind] += 1
        count = self.counts[kind]
        if count == 1:
            log.error("%s failed, and the next one is due all the same", self.what, exc_info=error)
        elif str(count).strip("0") == "1":
            log.error("%s has failed %d times: %s", self.what, count, kind)
