"""Exports the services' own prometheus_client metrics, with the label `worker` added.

A family that the monitor exports itself is left out. A label `worker` of the service's own becomes `exported_worker`, as
Prometheus renames a target's labels that conflict with the scrape's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.samples import Exemplar

from ...errors import DiagnosticsError
from .targets import Worker

__all__ = ["families_of", "registered_by"]

log = logging.getLogger("diagnostics.monitor")

_LEFT_OUT_TOLD: set[int] = set()


async def registered_by(worker: Worker) -> list[dict[str, Any]]:
    """The families of one worker from its agent; empty where it does not answer, or the service has no registry."""
    if worker.socket is None:
        return []
    try:
        registered = await worker.ask("registered")
    except DiagnosticsError as error:
        log.debug("worker %s does not tell its own metrics: %s", worker.name, error)
        return []
    if registered["left_out"] and worker.pid not in _LEFT_OUT_TOLD:
        _LEFT_OUT_TOLD.add(worker.pid)
        log.warning("worker %s has %d samples more than are passed on", worker.name, registered["left_out"])
    return registered["families"] or []


def families_of(registered: Mapping[str, Iterable[Mapping[str, Any]]], taken: set[str]) -> Iterator[Metric]:
    """One family for each name, with all workers' samples.

    registered   worker -> result of `registered_by`
    taken        names that are exported already, without `_total`
    """
    metrics: dict[str, Metric] = {}
    for worker, families in registered.items():
        for family in families:
            name = family["name"]
            if name in taken:
                continue
            metric = metrics.get(name)
            if metric is None:
                metric = metrics[name] = Metric(name, family["help"], family["type"], family["unit"])
            if metric.type == family["type"]:  # workers of two releases may have different types: the first one wins
                for sample_name, labels, value, exemplar in family["samples"]:
                    metric.add_sample(sample_name, _labelled(worker, labels), value, exemplar=_exemplar(exemplar))
    yield from metrics.values()


def _labelled(worker: str, labels: Mapping[str, str]) -> dict[str, str]:
    return {
        "worker": worker,
        **{("exported_worker" if name == "worker" else name): value for name, value in labels.items()},
    }


def _exemplar(fields: list[Any] | None) -> Exemplar | None:
    return None if fields is None else Exemplar(*fields)
