"""Whether a request that failed before its first byte is tried again, and after how long.

The rules are those of OpenAI's own clients, so that a caller meets the same behaviour through the relay as without it: what
is worth another try, what a server may say of it (`x-should-retry`, `retry-after`, `retry-after-ms`), and the growing pauses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["pause_seconds", "server_pause_seconds", "worth_retrying"]

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 8.0
# A server that asks for a longer pause is not asked again: the caller is told, and can decide.
LONGEST_SERVER_PAUSE_SECONDS: Final = 120.0
# Up to so much of a pause is taken off by chance, so that those who failed together do not come back together.
JITTER: Final = 0.25
# Request time-out, conflict (a lock), too many requests; and every failure of the server.
RETRIED_STATUSES: Final = frozenset({408, 409, 429})
SERVER_FAILURE: Final = 500


def worth_retrying(status: int, headers: Mapping[str, str], now: float) -> bool:
    """Whether a refusal may be gone at the next try. `headers` by lower-case names; `now` in seconds since the epoch."""
    asked = server_pause_seconds(headers, now)
    if asked is not None and asked > LONGEST_SERVER_PAUSE_SECONDS:
        return False
    told = headers.get("x-should-retry")
    if told in ("true", "false"):
        return told == "true"
    return status in RETRIED_STATUSES or status >= SERVER_FAILURE


def pause_seconds(tried: int, headers: Mapping[str, str], now: float, chance: float) -> float:
    """How long to wait before the next try.

    tried    how often it was tried again already
    headers  of the refusal, by lower-case names; empty where there was no answer
    chance   from 0 to 1
    """
    asked = server_pause_seconds(headers, now)
    if asked is not None and 0 < asked <= LONGEST_SERVER_PAUSE_SECONDS:
        return asked
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(tried, 16), LONGEST_PAUSE_SECONDS) * (1 - JITTER * chance)


def server_pause_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """How long the server asks to wait; None where it does not say so in any way that can be read.

    >>> server_pause_seconds({"retry-after-ms": "250"}, 0.0), server_pause_seconds({"retry-after": "soon"}, 0.0)
    (0.25, None)
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if not math.isnan(seconds):
            return seconds
    try:
        return parsedate_to_datetime(headers["retry-after"]).timestamp() - now
    except (KeyError, ValueError, TypeError, OverflowError, OSError):
        return None
