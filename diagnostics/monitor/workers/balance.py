"""One worker's balance: the kernel's view and the agent's, read at the same moment and joined by `analysis.balance`.

Reading smaps costs more the larger the process is (about 10 ms for each GiB), and for that time the process cannot map
or unmap memory. So a balance is cached for fifty times its cost: at most 2 % of the time is spent reading, however many
clients request it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...analysis.balance import Balance, Claims, balance
from ..kernel.cgroup import CgroupReading, read_cgroup, why_no_cgroup
from ..kernel.family import Family
from ..kernel.process import read_process
from ..kernel.rollup import why_unreadable
from ..kernel.smaps import read_regions

__all__ = ["BalanceReader", "read_balance"]

_SHARED_COSTS = 50


class BalanceReader:
    """The balance of process `pid`, read in a thread and cached.

    patience   seconds to wait for the kernel; after that the last balance is returned
    """

    def __init__(self, pid: int, proc: Path = Path("/proc"), patience: float = 2.0) -> None:
        self._pid = pid
        self._proc = proc
        self._patience = patience
        self._last: dict[str, Any] | None = None
        self._valid_until = 0.0
        self._reading: asyncio.Task[dict[str, Any]] | None = None

    async def read(
        self, rss: int, reading: Mapping[str, Any] | None, connections: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """The balance as JSON, with its time; None if it was never read because the kernel blocks.

        rss           bytes, for a process whose smaps cannot be read
        reading       the agent's current reading, None where it does not answer
        connections   the worker's, from `connections_of`
        """
        known = reading is not None
        if self._last and time.monotonic() < self._valid_until and self._last["agent"] == known:
            return self._last
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(
                asyncio.to_thread(read_balance, self._pid, rss, reading, connections, self._proc)
            )
        # A page fault on a stuck file system locks the process's memory map, and blocks readers of smaps.
        await asyncio.wait({self._reading}, timeout=self._patience)
        if self._reading.done():
            self._last = self._reading.result()
            self._valid_until = time.monotonic() + _SHARED_COSTS * self._last["cost_seconds"]
        return self._last


def read_balance(
    pid: int,
    rss: int,
    reading: Mapping[str, Any] | None,
    connections: Mapping[str, Any] | None = None,
    proc: Path = Path("/proc"),
) -> dict[str, Any]:
    """Read the kernel's view of process `pid` and join it with its agent's reading.

    Returns the keys of `Balance.to_json` and beside them
        time, cost_seconds   wall-clock time at the end; seconds that reading took
        agent                whether the allocators' figures are in it
        unknown              why a part, PSS and private bytes, or the cgroup, are unknown
        of_which             bytes of open streams, within the parts above, by layer; `requests`: of requests that are not
                             answered, and `events_out`: of events that wait to be sent on; None where the service does
                             not count them
        beside               bytes that are charged to the cgroup and in no process's RSS, or in other processes'
        cgroup               the cgroup's reading, None where it cannot be read
    """
    began = time.monotonic()
    regions = read_regions(pid, proc)
    split = balance(rss, regions, Claims.from_reading(reading))
    cgroup = read_cgroup(pid, proc.parent)
    beside = {"stream_sockets": _layer(connections, "kernel_bytes"), **_charged(cgroup), **_children(pid, proc)}
    return {
        **split.to_json(),
        "of_which": {
            "shared_memory": split.shared,
            "app": ((reading or {}).get("ledger") or {}).get("buffered_bytes"),
            "transport": _layer(connections, "transport_bytes"),
            "requests": _of_requests(reading),
            "kept": ((reading or {}).get("ledger") or {}).get("kept_bytes"),
            "events_out": _of_outbox(reading),
        },
        "beside": beside,
        "cgroup": cgroup.to_json() if cgroup else None,
        "agent": reading is not None,
        "unknown": {
            **_reasons(split, reading, None if regions is not None else why_unreadable(pid, proc)),
            **({} if cgroup else {"cgroup": why_no_cgroup(pid, proc.parent) or "it could not be read a moment ago"}),
        },
        "time": time.time(),
        "cost_seconds": time.monotonic() - began,
    }


def _of_requests(reading: Mapping[str, Any] | None) -> int | None:
    held = ((reading or {}).get("ledger") or {}).get("requests")
    return sum(held.values()) if held is not None else None


def _of_outbox(reading: Mapping[str, Any] | None) -> int | None:
    outbox = ((reading or {}).get("ledger") or {}).get("outbox")
    return sum(each["bytes"] for each in outbox.values()) if outbox is not None else None


def _layer(connections: Mapping[str, Any] | None, key: str) -> int | None:
    """Bytes of all connections of the worker in one layer; None where they are unknown."""
    rows = (connections or {}).get("routes", {}).values()
    known = [row[key] for row in rows if row.get(key) is not None]
    return sum(known) if known else None


def _charged(cgroup: CgroupReading | None) -> dict[str, int | None]:
    return {
        "page_cache": cgroup.cache_bytes if cgroup else None,
        "sockets": cgroup.socket_bytes if cgroup else None,
        "kernel": cgroup.kernel_bytes if cgroup else None,
    }


def _reasons(split: Balance, reading: Mapping[str, Any] | None, unreadable: str | None) -> dict[str, str]:
    """Why each part that is None is unknown: the reason that reading /proc or the agent gave, or that no agent answered."""
    reasons = ((reading or {}).get("allocators") or {}).get("unknown") or {}
    python = reasons.get("python_live_bytes", "Python's allocator tells nothing here")
    malloc = reasons.get("malloc_live_bytes", "malloc tells nothing here")
    why = {
        "python_live": python,
        "python_free": python,
        "malloc_live": malloc,
        "malloc_free": reasons.get("malloc_live_bytes") or unreadable or malloc,
        "tracers": "a tracer runs that does not tell what its own tables take",
    }
    if reading is None:
        why = dict.fromkeys(why, "no agent has told it: the process has none, or it does not answer")
    of_kernel = unreadable or "this kernel does not tell it"
    known = {**split.parts, "pss": split.pss, "private": split.private}
    return {name: why.get(name, of_kernel) for name, held in known.items() if held is None}


def _children(pid: int, proc: Path) -> dict[str, int | None]:
    """The sum of RSS of all descendants of `pid`; pages that a child shares with its parent are counted in both."""
    readings = [read_process(child, proc) for child in Family(proc).of(pid)[1:]]
    return {"children": sum(child.rss_bytes for child in readings if child is not None)}
