"""The options of resume. Imports no Redis client, which a relay without Redis need not have installed."""

from __future__ import annotations

from dataclasses import dataclass, field

from .logs import Bounds

__all__ = ["ResumeOptions", "SharedThrough"]


@dataclass(frozen=True, slots=True)
class SharedThrough:
    """The Redis through which several relays share their streams.

    url               with its password, if it has one: never to be logged
    prefix            the prefix of the relay's keys
    timeout_seconds   of one command
    patience_seconds  how long clients that follow a stream of another relay wait for Redis to come back; 0: not at all
    """

    url: str = field(repr=False)
    prefix: str
    timeout_seconds: float
    patience_seconds: float


@dataclass(frozen=True, slots=True)
class ResumeOptions:
    """`grace_seconds`: how long an upstream goes on without a client. `redis`: None where each relay has its own streams."""

    bounds: Bounds
    grace_seconds: float
    redis: SharedThrough | None
