"""The settings of a hub's Redis. Imports no Redis client, which a relay without Redis need not have installed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RedisOptions"]


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """The Redis through which several relays share their topics.

    url               with its password, if it has one: never to be logged
    prefix            the prefix of the relay's keys
    timeout_seconds   of one command
    patience_seconds  how long subscribers wait for Redis to come back; 0: not at all
    """

    url: str
    prefix: str
    timeout_seconds: float
    patience_seconds: float
