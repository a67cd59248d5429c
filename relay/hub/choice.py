"""Which hub the settings ask for: that of this process alone, or one that is shared through Redis."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import SettingsError
from ..settings import Settings
from .memory import Hub, MemoryHub
from .topics import Topics

__all__ = ["hub_of"]


def hub_of(settings: Settings, reject: Callable[[str], None]) -> Hub:
    """The hub; `reject` is told a word for each refusal. Raises SettingsError where Redis is asked for and not installed."""
    topics = Topics(settings.topics, reject)
    if settings.redis_url is None:
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
    timeout = settings.redis_timeout_seconds
    log = RedisLog(settings.redis_url.get_secret_value(), settings.redis_prefix, timeout, settings.topics)
    return RedisHub(topics, log, timeout, settings.redis_patience_seconds)
