"""Makes the hub that the settings ask for: one of this process alone, or one shared with other processes through Redis."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import SettingsError
from .memory import Hub, MemoryHub
from .options import RedisOptions
from .topics import Bounds, Topics

__all__ = ["hub_of"]


def hub_of(bounds: Bounds, redis: RedisOptions | None, reject: Callable[[str], None]) -> Hub:
    """The hub; `reject` is called with the reason of each refusal. Raises SettingsError where the redis client is missing."""
    topics = Topics(bounds, reject)
    if redis is None:
        return MemoryHub(topics)
    try:
        # Imported here, since the redis client is an extra that most relays do not install.
        from .redis import RedisHub
        from .redis_log import RedisLog
    except ImportError as error:
        raise SettingsError(
            f"RELAY_REDIS_URL is set, and {error.name} is not installed",
            remedy="pip install 'highwater-diagnostics[redis]'",
        ) from error
    log = RedisLog(redis.url, redis.prefix, redis.timeout_seconds, bounds)
    return RedisHub(topics, log, redis.timeout_seconds, redis.patience_seconds)
