"""Whether a request that failed before the first byte of its answer is sent again, and after which pause.

The rules are those of OpenAI's own clients, so that a caller sees the same behaviour through the relay as without it: which
statuses are retried, which headers of the server decide (`x-should-retry`, `retry-after`, `retry-after-ms`), and the pauses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["pause_seconds", "server_pause_seconds", "worth_retrying"]

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 8.0
# Where a server asks for a longer pause there is no retry: the caller gets the answer, and can decide.
LONGEST_SERVER_PAUSE_SECONDS: Final = 120.0
# The largest random share that a pause is shortened by, so that requests which failed together are not retried together.
JITTER: Final = 0.25
# Request time-out, conflict (a lock), too many requests; and every status from SERVER_FAILURE on.
RETRIED_STATUSES: Final = frozenset({408, 409, 429})
SERVER_FAILURE: Final = 500


def worth_retrying(status: int, headers: Mapping[str, str], now: float) -> bool:
    """Whether to retry after an answer with this status. `headers` by lower-case names; `now` in seconds since the epoch."""
    server_pause = server_pause_seconds(headers, now)
    if server_pause is not None and server_pause > LONGEST_SERVER_PAUSE_SECONDS:
        return False
    should_retry = headers.get("x-should-retry")
    if should_retry in ("true", "false"):
        return should_retry == "true"
    return status in RETRIED_STATUSES or status >= SERVER_FAILURE


def pause_seconds(tried: int, headers: Mapping[str, str], now: float, chance: float) -> float:
    """Seconds to wait before the next attempt.

    tried    retries so far
    headers  of the failed attempt's answer, by lower-case names; empty where there was no answer
    now      seconds since the epoch
    chance   a random number from 0 to 1, for the jitter
    """
    server_pause = server_pause_seconds(headers, now)
    if server_pause is not None and 0 < server_pause <= LONGEST_SERVER_PAUSE_SECONDS:
        return server_pause
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(tried, 16), LONGEST_PAUSE_SECONDS) * (1 - JITTER * chance)


def server_pause_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the server's headers ask to wait; None where they name no pause, or none that can be read.

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
        date = parsedate_to_datetime(headers["retry-after"])
        # `-0000` is UTC of a server that does not say where it is (RFC 5322, 3.3); Python takes it for local time.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (KeyError, ValueError, TypeError, OverflowError, OSError):
        return None
