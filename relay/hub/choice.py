"""Which hub the settings ask for: that of this process alone, or one that is shared through Redis."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import SettingsError
from .memory import Hub, MemoryHub
from .options import RedisOptions
from .topics import Bounds, Topics

__all__ = ["hub_of"]


def hub_of(bounds: Bounds, redis: RedisOptions | None, reject: Callable[[str], None]) -> Hub:
    """The hub; `reject` is told a word for each refusal. Raises SettingsError where Redis is asked for and not installed."""
    topics = Topics(bounds, reject)
    if redis is None:
        return MemoryHub(topics)
    try:
        # Here, not above: most relays need no Redis, and it is an extra of its own.
        from .redis import RedisHub
        from .redis_log import RedisLog
    except ImportError as error:
        raise SettingsError(
            f"RELAY_REDIS_URL is set, and {error.name} is not installed",
            remedy="pip install 'highwater-diagnostics[redis]'",
        ) from error
    log = RedisLog(redis.url, redis.prefix, redis.timeout_seconds, bounds)
    return RedisHub(topics, log, redis.timeout_seconds, redis.patience_seconds)
