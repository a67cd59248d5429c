"""What egress counts of each worker, for the metrics: apart from what runs, which is imported only where it is switched on."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["EgressCounts"]


@dataclass(frozen=True)
class EgressCounts:
    """Of one worker, since this monitor began: uploads by how they ended, tries that failed, bytes sent; and what waits now."""

    ended: dict[str, int] = field(default_factory=dict)
    failed_tries: int = 0
    bytes: int = 0
    waiting: int = 0
