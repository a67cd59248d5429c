"""Makes the store that the settings ask for: one of this process alone, or one shared with other processes through Redis."""

from __future__ import annotations

from ..errors import SettingsError
from .options import ResumeOptions
from .store import MemoryStore, Store

__all__ = ["store_of"]


def store_of(options: ResumeOptions) -> Store:
    """The store. Raises SettingsError where the redis client is missing."""
    redis = options.redis
    if redis is None:
        return MemoryStore(options.bounds)
    try:
        # Imported here, since the redis client is an extra that most relays do not install.
        from .redis import RedisStore
    except ImportError as error:
        raise SettingsError(
            f"RELAY_RESUME is redis, and {error.name} is not installed",
            remedy="pip install 'highwater-diagnostics[redis]'",
        ) from error
    return RedisStore(options.bounds, redis)
