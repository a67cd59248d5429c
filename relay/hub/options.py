"""The Redis of a hub, as the settings say it. Imports no Redis client: a relay without one need not have it installed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RedisOptions"]


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """The Redis that several relays share their topics through.

    url               with its password, if it has one: never to be logged
    prefix            how the relay's keys begin
    timeout_seconds   longest wait for one answer of Redis
    patience_seconds  how long subscribers wait for Redis to come back; 0: they do not
    """

    url: str
    prefix: str
    timeout_seconds: float
    patience_seconds: float
