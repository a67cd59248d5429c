"""Counts the failures of a loop that must go on, and tells them without filling the log: each kind of failure the first time
with its traceback, and again with its count whenever that is a power of ten."""

from __future__ import annotations

import logging
from collections import Counter

__all__ = ["Failures"]

log = logging.getLogger("diagnostics.monitor")

# Kinds that are told apart: a failure whose text always differs is one kind.
_MAX_KINDS = 50
_OTHER = "others"


class Failures:
    """The failures of one loop; `what` says in words what fails: "a look of the recorder"."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.counts: Counter[str] = Counter()

    def failed(self, error: Exception) -> None:
        """Count `error`. To be called where it was caught."""
        kind = repr(error)[:200]
        if kind not in self.counts and len(self.counts) >= _MAX_KINDS:
            kind = _OTHER
        self.counts[kind] += 1
        count = self.counts[kind]
        if count == 1:
            log.error("%s failed, and the next one is due all the same", self.what, exc_info=error)
        elif str(count).strip("0") == "1":
            log.error("%s has failed %d times: %s", self.what, count, kind)
