"""Where a caller stands with its limits, as the header fields RateLimit-Policy and RateLimit of the IETF draft
draft-ietf-httpapi-ratelimit-headers-11 of May 2026.

| policy | limit | quota units |
|---|---|---|
| `requests` | RELAY_KEY_RATE of this caller, a token bucket | requests |
| `streams` | RELAY_KEY_MAX_STREAMS of this caller | concurrent requests |
| `all` | RELAY_RATE of all callers together, a token bucket | requests |

The law of this file: a caller learns its own use and nobody else's. What is left of the rate of all would tell how busy others
are, so `all` is shown only while nothing is left of it, which the refusal tells anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["CONCURRENT", "POLICY_FIELD", "STANDING_FIELD", "Standing", "header_fields", "quota_of"]

POLICY_FIELD: Final = "ratelimit-policy"
STANDING_FIELD: Final = "ratelimit"
# The draft's name for a quota of requests that are served at the same time; without a name a quota is one of requests.
CONCURRENT: Final = "concurrent-requests"


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit, and what is left of it.

    quota       units that the policy allots
    window      seconds in which it does; None: it has no window
    unit        the draft's name of the units; None: requests
    remaining   units that are left
    reset       seconds until there is one more; None: there are as many as there can be, or nobody knows
    """

    name: str
    quota: int
    remaining: int
    window: int | None = None
    unit: str | None = None
    reset: int | None = None


def quota_of(rate: float, burst: int) -> tuple[int, int]:
    """The quota and the window, in whole seconds, of a token bucket: at most what it lets through for ever.

    >>> quota_of(2, 20), quota_of(0.01, 2), quota_of(50, 20)
    ((20, 10), (2, 200), (50, 1))
    """
    return (burst, math.ceil(burst / rate)) if burst >= rate else (math.floor(rate), 1)


def header_fields(standings: Iterable[Standing]) -> list[tuple[bytes, bytes]]:
    """The two header fields, lists of RFC 9651; none for no limits.

    >>> [value.decode() for _, value in header_fields([Standing("requests", 20, 19, window=10, reset=1)])]
    ['"requests";q=20;w=10', '"requests";r=19;t=1']
    """
    policies, states = [], []
    for each in standings:
        policy = f'"{each.name}";q={each.quota}'
        if each.unit is not None:
            policy += f';qu="{each.unit}"'
        if each.window is not None:
            policy += f";w={each.window}"
        policies.append(policy)
        states.append(f'"{each.name}";r={each.remaining}' + (f";t={each.reset}" if each.reset is not None else ""))
    if not policies:
        return []
    return [
        (POLICY_FIELD.encode(), ", ".join(policies).encode()),
        (STANDING_FIELD.encode(), ", ".join(states).encode()),
    ]
