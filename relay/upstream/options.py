"""How upstreams are asked, as the settings say it. Imports no HTTP client: commands that ask no upstream start without one."""

from __future__ import annotations

from dataclasses import dataclass

from ..memory.budget import StreamBudget

__all__ = ["Timeouts", "UpstreamOptions"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, None for ever.

    pool      wait for a free place among the connections
    connect   TCP and TLS
    silence   until the response's head, and between two pieces of its body
    """

    pool: float | None
    connect: float | None
    silence: float | None


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """What holds for every upstream of a relay.

    budget               of one stream; it bounds what a connection to the upstream holds
    max_response_bytes   largest answer that does not stream
    stream, answer       how long is waited for a stream, and for an answer that does not stream
    retries              how often a request is tried again before its first byte
    """

    budget: StreamBudget
    max_connections: int
    max_response_bytes: int
    stream: Timeouts
    answer: Timeouts
    retries: int
