"""Makes what the settings ask for to be told of the ends of streams in Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import SettingsError
from .options import KafkaOptions

if TYPE_CHECKING:
    from .kafka import KafkaOut

__all__ = ["kafka_of"]


def kafka_of(options: KafkaOptions | None) -> KafkaOut | None:
    """The producer; None where no broker is set. Raises SettingsError where the client is missing or refuses a property."""
    if options is None:
        return None
    try:
        # Imported here, since the Kafka client is an extra that most relays do not install.
        from .kafka import KafkaOut
    except ImportError as error:
        raise SettingsError(
            f"RELAY_KAFKA_BOOTSTRAP_SERVERS is set, and {error.name} is not installed",
            remedy="pip install 'highwater-diagnostics[kafka]'",
        ) from error
    return KafkaOut(options)
