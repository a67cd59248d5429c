"""The service as a whole: all its processes with their PSS and private bytes, read together and cached for all clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..kernel.rollup import LEAST_SECONDS, Rollup, Rollups, why_unreadable
from .processes import Children, Member
from .targets import Targets, Worker

__all__ = ["ServiceLook", "Whole"]

_SHARED_SECONDS = 0.5
# Of a pool of a thousand processes the sums and the largest processes are shown.
_SHOWN = 30


@dataclass(frozen=True)
class ServiceLook:
    """All processes of the service at one moment; `time`: wall-clock seconds.

    fresh    whether PSS and private bytes are of this moment; False: of an earlier one, because reading them is costly
    unseen   names of the sockets of agents whose processes are not visible here
    """

    time: float
    members: Sequence[Member]
    fresh: bool = True
    unseen: frozenset[str] = frozenset()

    def own(self, pid: int) -> Rollup | None:
        """PSS and private bytes of process `pid`."""
        return next((each.rollup for each in self.members if each.pid == pid), None)

    def children_of(self, worker: str) -> Children:
        """Sums over the descendants of a worker that are no workers themselves."""
        return Children.of(each for each in self.members if each.role == "child" and each.worker == worker)

    @cached_property
    def total(self) -> Children:
        """Sums over all processes."""
        return Children.of(self.members)

    def unknown(self) -> dict[str, str]:
        """Name of a sum -> why it is unknown."""
        reasons: dict[str, str] = {}
        left = next((each for each in self.members if each.rollup is None), None)
        if left is not None:
            why = f"of process {left.pid} ({left.program}): {why_unreadable(left.pid)}"
            reasons |= {"pss_bytes": why, "private_bytes": why}
        if self.unseen:
            reasons["processes"] = (
                f"agents listen as {', '.join(sorted(self.unseen))} whose processes cannot be seen from here: they are "
                "in another PID namespace, or /proc hides them; in Kubernetes set shareProcessNamespace: true"
            )
        return reasons

    def to_json(self) -> dict[str, Any]:
        """Sums over all processes, and the processes that are no workers, largest first."""
        beside = sorted((each for each in self.members if each.role != "worker"), key=lambda each: -each.rss)
        return {
            "time": self.time,
            **self.total.to_json(),
            "workers": sum(each.role == "worker" for each in self.members),
            "supervisors": [each.to_json() for each in beside if each.role == "supervisor"][:_SHOWN],
            "children": [each.to_json() for each in beside if each.role == "child"][:_SHOWN],
            "unknown": self.unknown(),
        }


class Whole:
    """Reads all processes of `targets`. `interval`: seconds between two readings of the recorder."""

    def __init__(self, targets: Targets, interval: float = 1.0) -> None:
        self._targets = targets
        self._shared_seconds = min(_SHARED_SECONDS, interval / 2)
        self._rollups = Rollups(LEAST_SECONDS * min(1.0, interval))
        self._lock = asyncio.Lock()
        self._shared: tuple[float, ServiceLook] | None = None

    async def look(self, workers: Iterable[Worker] | None = None) -> ServiceLook:
        """`workers`: those that the caller has just found."""
        async with self._lock:
            if self._shared is None or time.monotonic() - self._shared[0] >= self._shared_seconds:
                processes = self._targets.processes(workers)
                read, fresh = await self._rollups.read([each.pid for each in processes])
                members = [replace(each, rollup=read[each.pid]) for each in processes]
                self._shared = (
                    time.monotonic(),
                    ServiceLook(time.time(), members, fresh, frozenset(self._targets.unseen)),
                )
            return self._shared[1]
