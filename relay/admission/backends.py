"""Makes the shared limits that the settings ask for."""

from __future__ import annotations

from ..errors import SettingsError
from .sharing import Shared, SharedOptions

__all__ = ["shared_of"]


def shared_of(options: SharedOptions | None) -> Shared | None:
    """The shared limits; None where each relay has its own. Raises SettingsError where the redis client is missing."""
    if options is None:
        return None
    try:
        # Imported here, since the redis client is an extra that most relays do not install.
        from .redis_limits import RedisLimits
    except ImportError as error:
        raise SettingsError(
            f"RELAY_SHARED_LIMITS is set, and {error.name} is not installed",
            remedy="pip install 'highwater-diagnostics[redis]'",
        ) from error
    return RedisLimits(options)
