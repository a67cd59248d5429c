"""The settings of requests to upstreams. Imports no HTTP client: commands that send no request start without one."""

from __future__ import annotations

from dataclasses import dataclass

from ..memory.budget import StreamBudget

__all__ = ["Timeouts", "UpstreamOptions"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time-outs in seconds; None: none.

    pool      for a free connection of the pool
    connect   for TCP's connect and the TLS handshake
    silence   for the response's head, and between two pieces of its body
    """

    pool: float | None
    connect: float | None
    silence: float | None


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """The options that all upstreams of a relay share.

    budget               of one stream; it bounds the bytes that a connection to the upstream holds
    max_response_bytes   the largest answer that does not stream
    stream, answer       the time-outs of a request that streams, and of one that does not
    retries              how often a request is sent again before the first byte of an answer
    """

    budget: StreamBudget
    max_connections: int
    max_response_bytes: int
    stream: Timeouts
    answer: Timeouts
    retries: int
