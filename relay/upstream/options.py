"""How upstreams are asked, as the settings say it. Imports no HTTP client: commands that ask no upstream start without one."""

from __future__ import annotations

from dataclasses import dataclass

from ..memory.budget import StreamBudget

__all__ = ["UpstreamOptions"]


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """What holds for every upstream of a relay.

    budget               of one stream; it bounds what a connection to the upstream holds
    max_response_bytes   largest answer that does not stream
    connect_seconds, pool_seconds   longest wait for a new connection, and for one of the `max_connections`
    stream_seconds, answer_seconds  longest silence of the upstream in a stream, and in an answer that does not stream
    retries              how often a request is tried again before its first byte
    """

    budget: StreamBudget
    max_connections: int
    max_response_bytes: int
    connect_seconds: float
    pool_seconds: float
    stream_seconds: float
    answer_seconds: float
    retries: int
