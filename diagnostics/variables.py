"""The names of all variables that the agent, the monitor and the commands read, and what a misspelled one may be meant as.

A variable that nobody reads has no effect and no error: a service whose token is in DIAGNOSTICS_TOKN has none.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

__all__ = ["PREFIX", "VARIABLES", "misspelled"]

PREFIX = "DIAGNOSTICS_"
VARIABLES = frozenset(
    PREFIX + name
    for name in (
        "AGENT", "ALLOWED_HOSTS", "DIR", "EGRESS_BYTES_A_DAY", "EGRESS_SERVICE", "EGRESS_TIMEOUT_SECONDS", "EGRESS_TRIES",
        "EGRESS_URL", "EGRESS_WAITING", "FLEET_TARGETS", "HEAP", "HEAP_RATE", "KEEP_BYTES", "KEEP_CAPTURES", "KEEP_DAYS",
        "KEEP_FREE_BYTES", "LISTEN", "LOOKS_PER_HOUR", "MONITOR_URL", "PPROF_INTERVAL_SECONDS", "PROFILES_HEADERS",
        "PROFILES_NAME", "PROFILES_PROTOCOL", "PROFILES_SECONDS", "PROFILES_URL", "READ_TOKEN", "RECORD_FILES",
        "RECORD_INTERVAL_SECONDS", "RECORD_MINUTES", "RECORD_SECONDS", "RULES", "SHOW_NAMES", "TOKEN", "TOLD",
    )
)  # fmt: skip
# How alike two names without their prefix are (difflib's ratio) of which one may be meant as the other.
# What Kubernetes sets for a Service named as the prefix (RELAY_SERVICE_HOST, RELAY_PORT_80_TCP_ADDR) is less like any of ours.
_ALIKE = 0.8


def misspelled(environment: Iterable[str], known: Collection[str] = VARIABLES, prefix: str = PREFIX) -> dict[str, str]:
    """Of the names of variables, those with this prefix that are not known, each with the known one that may be meant."""
    words = [name.removeprefix(prefix) for name in known]
    found = {}
    for name in sorted(environment):
        if name.startswith(prefix) and name not in known:
            for word in difflib.get_close_matches(name.removeprefix(prefix), words, 1, _ALIKE):
                found[name] = prefix + word
    return found
