"""All processes of the service: its workers, their supervisors, and the children of both.

A child that neither listens nor has an agent (a process pool, Celery's prefork pool, a job runner) takes memory of the
container or machine, too. It is read from outside and shown with the worker that is its ancestor.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..kernel.family import Family, is_reading, program_of, why_no_agent
from ..kernel.process import memory_and_state
from ..kernel.rollup import Rollup

__all__ = ["Children", "Member", "members"]


@dataclass(frozen=True, slots=True)
class Member:
    """One process at one moment.

    program   the name of its program, without arguments, which may be secrets
    role      worker; supervisor (an ancestor of workers that serves nothing itself); child (any other process)
    worker    its own number as a worker, or that of its nearest ancestor that is one; None where there is none
    rollup    None where smaps_rollup cannot be read
    """

    pid: int
    parent: int | None
    program: str
    role: Literal["worker", "supervisor", "child"]
    worker: str | None
    rss: int
    rollup: Rollup | None = None

    def to_json(self) -> dict[str, Any]:
        rollup = self.rollup
        return {
            "pid": self.pid,
            "parent": self.parent,
            "program": self.program,
            "role": self.role,
            "worker": self.worker,
            "rss_bytes": self.rss,
            "pss_bytes": rollup.pss if rollup else None,
            "private_bytes": rollup.private if rollup else None,
            "agent": None if self.role == "child" else self.role == "worker",
            "reason": _why_no_agent(self.pid) if self.role == "child" else None,
        }


@dataclass(frozen=True, slots=True)
class Children:
    """Sums over several processes, in bytes; None where one of them cannot be read."""

    count: int
    rss: int
    pss: int | None
    private: int | None

    @classmethod
    def of(cls, children: Iterable[Member]) -> Children:
        those = list(children)
        rollups = [each.rollup for each in those if each.rollup is not None]
        whole = len(rollups) == len(those)
        return cls(
            len(those),
            sum(each.rss for each in those),
            sum(each.pss for each in rollups) if whole else None,
            sum(each.private for each in rollups) if whole else None,
        )

    def to_json(self) -> dict[str, Any]:
        return {"count": self.count, "rss_bytes": self.rss, "pss_bytes": self.pss, "private_bytes": self.private}


def members(
    roots: Iterable[int],
    workers: Mapping[int, str],
    supervisors: Iterable[int],
    family: Family,
    proc: Path = Path("/proc"),
) -> list[Member]:
    """`roots` and all their descendants, parents first, each process once. This monitor and its children are left out, and
    the agents' forked readings: their memory is what diagnostics takes for a moment, and nothing that the service starts.

    workers       pid -> the worker's name
    supervisors   pids of known supervisors; any ancestor of a worker is one, too
    """
    by_pid: dict[int, Member] = {}
    above = set(supervisors) | {each for pid in workers for each in family.above(pid)}
    left: list[tuple[int, int | None, str | None]] = [(root, None, None) for root in _highest(roots, family)]
    while left:
        pid, parent, worker = left.pop(0)
        if pid in by_pid or pid == os.getpid():
            continue
        rss, state = memory_and_state(pid, proc) or (0, "Z")
        if state == "Z" or (pid not in workers and is_reading(pid, proc)):
            continue
        worker = workers.get(pid, worker)
        role: Literal["worker", "supervisor", "child"] = (
            "worker" if pid in workers else "supervisor" if pid in above else "child"
        )
        by_pid[pid] = Member(pid, parent, program_of(pid, proc), role, worker, rss)
        left += [(child, pid, worker) for child in family.children(pid)]
    return list(by_pid.values())


def _highest(roots: Iterable[int], family: Family) -> list[int]:
    """Those of the roots that are no descendants of another one."""
    given = set(roots)
    return sorted(root for root in given if given.isdisjoint(family.above(root)))


def _why_no_agent(pid: int) -> str:
    """A sentence why a child process has no agent, with the remedy."""
    why = why_no_agent(pid)
    if "has not served" not in why:
        return why
    return "it does not listen, so it has no agent; start the service with DIAGNOSTICS_AGENT=always to capture it"
