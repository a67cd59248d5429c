"""Logs refused requests. A flood of refusals makes a few lines, each with a count."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from ..log import Throttle

__all__ = ["REJECTION_SECONDS", "Rejections"]

REJECTION_SECONDS: Final = 10.0

log = logging.getLogger("relay.admission")


class Rejections:
    """Logs refused requests: the first of a reason at once, then at most one line in REJECTION_SECONDS, with their number.

    Call it for each refusal with the reason, one of a few fixed words; `cause` is the HTTP parser's message, if any.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._throttle = Throttle(REJECTION_SECONDS, clock)

    def __call__(self, reason: str, cause: str = "") -> None:
        count = self._throttle.due(reason)
        if count:
            fields = {"outcome": "rejected", "reason": reason, "count": count}
            if cause:
                fields["cause"] = cause
            log.warning("requests were not let in", extra={"fields": fields})
