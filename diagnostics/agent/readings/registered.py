"""The service's own metrics in prometheus_client's registry: read where the service has imported it, never imported here.

Collectors are the service's own code and run on the agent's thread, as they run on a thread of prometheus_client's own
server. They hold the GIL: a registry with a label that grows without end is read up to a bound, and the answer says so.
"""

from __future__ import annotations

import sys

from ..reading_cache import rest_if_due

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["MAX_SAMPLES", "read"]

# About 4 microseconds a sample. A service has hundreds; more than this comes from a label that holds an id.
MAX_SAMPLES = 5000


def read() -> dict[str, Any]:
    """{"families": [{"name", "help", "type", "unit", "samples": [[name, labels, value, exemplar]]}], "left_out": samples}.

    An exemplar is [labels, value, wall-clock time] or None. `families` is None where prometheus_client is not imported.
    """
    client = sys.modules.get("prometheus_client")
    registry = getattr(client, "REGISTRY", None)
    if registry is None:
        return {"families": None, "left_out": 0}
    families, room, left_out = [], MAX_SAMPLES, 0
    for metric in registry.collect():
        samples = metric.samples[:room]
        room -= len(samples)
        left_out += len(metric.samples) - len(samples)
        families.append(
            {
                "name": metric.name,
                "help": metric.documentation,
                "type": metric.type,
                "unit": metric.unit,
                "samples": [[one.name, one.labels, one.value, _exemplar(one.exemplar)] for one in samples],
            }
        )
        rest_if_due()
    return {"families": families, "left_out": left_out}


def _exemplar(exemplar: Any) -> list[Any] | None:
    return None if exemplar is None else [exemplar.labels, exemplar.value, exemplar.timestamp]
