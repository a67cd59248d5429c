"""What egress is told: where to, how much, how often. Read from the environment by the monitor's settings."""

from __future__ import annotations

from dataclasses import dataclass

from .destination import Destination

__all__ = ["EgressSettings"]


@dataclass(frozen=True, slots=True)
class EgressSettings:
    """Egress is off where `destination` is None.

    service         the service's name in the store and in each manifest, one segment of a path
    bytes_a_day     bytes that this monitor sends in a day (UTC); 0: no limit
    tries           how often one upload is tried
    waiting         how many uploads may wait
    timeout_seconds how long a request may go unanswered
    """

    destination: Destination | None = None
    service: str = "service"
    bytes_a_day: int = 1024**3
    tries: int = 12
    waiting: int = 100
    timeout_seconds: float = 60.0
