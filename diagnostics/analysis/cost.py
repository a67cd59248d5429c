"""Estimates a capture's cost for the service before it starts: from the service's size, live blocks and load.

Stalls, memory and disk are upper figures within a factor of two on the machines they were measured on, because the
question is whether a capture at 3 a.m. would be an outage. `tests/bench/bench_captures.py` compares them with measured
costs.

Two costs differ in kind. A *stall* stops all streams once: the fork of a forked reading, the end of a tracer's window.
A *slowdown* multiplies the CPU time of everything that allocates for as long as a window is open; past what the service
can have of a core it no longer keeps up, and that is the outage.

There are two figures for a slowdown, since it depends on what the service does. At *worst* it is that of a loop which does
nothing but allocate. A service that also parses, calls and writes *likely* has a part of it: `tests/bench/capture_load.py`
measures one. A capture is refused where the likely one is too much, and warned of where only the worst one is; its window
is cut short should the service not keep up (monitor.captures.cost.watch).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

__all__ = [
    "SATURATED",
    "Estimate",
    "Load",
    "Method",
    "estimate",
    "likely_slowdown",
    "slowdown",
    "too_costly",
    "warning",
]

MIB, GIB = 1024**2, 1024**3

# Above this share of one core the service's queues grow: CPython runs on one core, however many the machine has.
SATURATED = 0.9

# A thread that runs, or waits for a core, for more than this share of the time never rests: slowed down, it falls behind.
NO_REST = 0.97

# Fork: 20, 40 and 82 ms measured at 1, 2 and 4 GiB of RSS (page tables are copied), about a millisecond with none.
_FORK_MS, _FORK_MS_PER_GIB = 1.0, 21.0
# Ending a window, per million blocks that it traced: tracemalloc.stop() 24 ms with 1 frame and 41 with 5, and 65 more
# after a fork, whose shared pages it writes to (25,000 faults of 3 us); memray's aggregated format 54 to 97 ms (it is
# written then), its full format 22 to 31.
_TRACEMALLOC_END_MS, _TRACEMALLOC_END_MS_PER_FRAME, _SHARED_PAGES_MS = 20.0, 4.2, 65.0
_AGGREGATED_END_MS, _FULL_END_MS = 97.0, 31.0
# CPU of a loop that mostly allocates (queues of small chunks) under a tracer, in multiples: tracemalloc with 1 frame
# 4.9, with 5 from 3 % of a core to 50, with 25 frames 38; memray's aggregated format from 3 % to 16, the full one 3.7
# without and 8 with Python's allocators, 17 with native stacks.
_TRACEMALLOC_SLOWDOWN = ((1, 4.9), (5, 16.7), (25, 38.0))
# The same of a FastAPI service that streams JSON, by the CPU time of a request: 1.5 to 2.1 with 1 frame, 2.5 to 3.5 with 5,
# and with memray's aggregated format 1.8 to 2.9, which is 0.3 of what the loop has beyond 1. The rest is in proportion,
# not measured.
_TRACEMALLOC_LIKELY = ((1, 1.9), (5, 3.3), (25, 6.5))
_MEMRAY_LIKELY_PART = 0.3
_MEMRAY_SLOWDOWN, _AGGREGATED_SLOWDOWN, _PYTHON_ALLOCATORS_SLOWDOWN, _NATIVE_SLOWDOWN = 3.7, 5.3, 8.0, 17.0
# Memory per traced block, measured over a million blocks: tracemalloc 105 bytes in the service, and 246 more in the child
# that makes its statistics; memray 116 aggregated and 10 in the full format.
_TRACEMALLOC_BYTES, _SNAPSHOT_BYTES = 105, 246
_AGGREGATED_BYTES, _FULL_BYTES, _MEMRAY_BYTES = 120, 10, 24 * MIB
# CPU time of a forked child: a LiteLLM proxy of 1.2 million objects took 1.3 s for each of two censuses and 2.3 s for the
# paths, a synthetic heap of 1.5 million objects as much. tracemalloc 0.4 s per million blocks, and as much for its statistics.
_CENSUS_SECONDS, _SNAPSHOT_SECONDS = 2.3e-6, 0.8e-6
# The child has a higher nice value: where cores are short it waits about twice as long as the service does.
_NICER = 2.0
# Blocks that Python can allocate and keep in a second on a core of its own.
_BLOCKS_PER_SECOND = 3_000_000
# Resident bytes per block, where the interpreter does not count its blocks.
_BYTES_PER_BLOCK = 96
# A busy service wrote 38 MB in 5 s in memray's full format. A page that memray renders carries its 4.4 MiB of scripts.
_FULL_DISK_PER_SECOND, _PROFILE_DISK, _FLAME_DISK, _PAGE_DISK = 8_000_000, 2 * MIB, MIB, 5 * MIB


@dataclass(frozen=True, slots=True)
class Load:
    """The service before the capture.

    live_blocks   Python's blocks in use; None: unknown
    cpu_share     of one core, 0.0 to the number of cores; None: unknown
    contention    wall-clock time / CPU time of its work: above 1.0 where other processes compete for the cores
    core_left     the share of one core that the service may use: less than 1.0 where its cgroup has a CPU quota
    core_free     the share of one core that it could have used now, beside other processes
    busy_share    the share of the time in which a thread of it ran or waited for a core; None: unknown
    """

    rss_bytes: int
    live_blocks: int | None = None
    cpu_share: float | None = None
    contention: float = 1.0
    core_left: float = 1.0
    core_free: float = 1.0
    busy_share: float | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """A capture's technique and parameters.

    tracer     the tracer of its window, None for a reading of one moment
    seconds    length of the window
    forks      whether a forked child reads
    census     whether that child visits every object, and so copies the pages of all of them
    renders    whether HTML pages are rendered
    """

    tracer: Literal["tracemalloc", "memray"] | None = None
    seconds: float = 0.0
    frames: int = 1
    aggregated: bool = True
    python_allocators: bool = True
    native: bool = False
    forks: bool = True
    census: bool = True
    renders: bool = True


@dataclass(frozen=True, slots=True)
class Estimate:
    """A capture's cost. Milliseconds, bytes; shares are of one core.

    stall_ms           all streams stop this long: the sum of `fork_ms` and `ending_ms`, contention for cores included
    slowdown           CPU time is multiplied by at most this while the window is open; likely_slowdown: most likely by this
    cpu_share_during   the service's need during the window at worst; None where its share now is unknown
    likely_cpu_share_during   the likely need
    core_left          the share that it may use; core_free: of that the share free now, which may change in a second
    no_rest            whether a thread of the service runs, or waits for a core, all the time already
    would_saturate     `no_rest`, or the likely need is above the share that it may use
    may_saturate       the worst need is above that share, or the likely one above the share that is free now
    reading_seconds    how long a forked child reads after the window; the service goes on meanwhile
    memory_bytes       additional memory of the service and a forked child together
    """

    stall_ms: float
    fork_ms: float
    ending_ms: float
    slowdown: float
    likely_slowdown: float
    cpu_share: float | None
    cpu_share_during: float | None
    likely_cpu_share_during: float | None
    core_left: float
    core_free: float
    no_rest: bool
    would_saturate: bool
    may_saturate: bool
    reading_seconds: float
    memory_bytes: int
    disk_bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate(method: Method, load: Load) -> Estimate:
    """The cost of taking a capture with `method` from a service under `load`."""
    traced = _traced_blocks(method, load)
    alone = _FORK_MS + _FORK_MS_PER_GIB * load.rss_bytes / GIB if method.forks else 0.0
    fork_ms = load.contention * alone
    ending_ms = load.contention * _ending_ms_per_million(method) * traced / 1e6
    factor, likely_factor = slowdown(method), likely_slowdown(method)
    during = None if load.cpu_share is None else round(load.cpu_share * factor, 3)
    likely = None if load.cpu_share is None else round(load.cpu_share * likely_factor, 3)
    no_rest = load.busy_share is not None and load.busy_share > NO_REST
    bearable, free = SATURATED * load.core_left, SATURATED * min(load.core_left, load.core_free)
    return Estimate(
        stall_ms=round(fork_ms + ending_ms, 1),
        fork_ms=round(fork_ms, 1),
        ending_ms=round(ending_ms, 1),
        slowdown=round(factor, 2),
        likely_slowdown=round(likely_factor, 2),
        cpu_share=load.cpu_share,
        cpu_share_during=during,
        likely_cpu_share_during=likely,
        core_left=load.core_left,
        core_free=load.core_free,
        no_rest=no_rest,
        would_saturate=method.tracer is not None and (no_rest or (likely or 0.0) > bearable),
        may_saturate=method.tracer is not None and ((during or 0.0) > bearable or (likely or 0.0) > free),
        reading_seconds=_reading_seconds(method, load, traced),
        memory_bytes=_memory_bytes(method, load, traced),
        disk_bytes=_disk_bytes(method),
    )


def slowdown(method: Method) -> float:
    """The factor by which CPU time grows at worst while the window is open; 1 without a tracer."""
    if method.tracer is None:
        return 1.0
    if method.tracer == "tracemalloc":
        return _interpolated(_TRACEMALLOC_SLOWDOWN, method.frames)
    if method.native:
        return _NATIVE_SLOWDOWN
    if not method.python_allocators:
        return _MEMRAY_SLOWDOWN
    return _AGGREGATED_SLOWDOWN if method.aggregated else _PYTHON_ALLOCATORS_SLOWDOWN


def likely_slowdown(method: Method) -> float:
    """The likely factor, for a service that does more than allocate; 1 without a tracer."""
    if method.tracer == "tracemalloc":
        return _interpolated(_TRACEMALLOC_LIKELY, method.frames)
    return 1 + _MEMRAY_LIKELY_PART * (slowdown(method) - 1)


def too_costly(cost: Estimate, headroom_bytes: int | None) -> str | None:
    """Why a capture of this cost would be an outage now, in a sentence; None where it would not."""
    if cost.would_saturate and cost.no_rest:
        return (
            f"the service has no rest: a thread of it works, or waits for a core, all the time, with "
            f"{_percent(cost.cpu_share)} of a core, and would likely need {cost.likely_slowdown:g} times as much while it "
            "is traced"
        )
    if cost.would_saturate:
        return (
            f"the service uses {_percent(cost.cpu_share)} of a core and would likely need "
            f"{_percent(cost.likely_cpu_share_during)} while it is traced ({cost.likely_slowdown:g} times, at worst "
            f"{cost.slowdown:g}), more than {_bearable(cost)}"
        )
    if headroom_bytes is not None and cost.memory_bytes > headroom_bytes:
        return f"it may need {cost.memory_bytes / MIB:,.0f} MiB and {headroom_bytes / MIB:,.0f} MiB are left before the limit"
    return None


def warning(cost: Estimate) -> str | None:
    """The worst case of a capture that is not refused, in a sentence; None where even that is no outage."""
    if cost.would_saturate or not cost.may_saturate:
        return None
    cut = "the window is cut short if it does not keep up"
    if (cost.likely_cpu_share_during or 0.0) > SATURATED * cost.core_free:
        return (
            f"the service would likely need {_percent(cost.likely_cpu_share_during)} of a core while it is traced, and others "
            f"leave it {_percent(cost.core_free)} of one now; {cut}"
        )
    return (
        f"a service that does little but allocate is {cost.slowdown:g} times slower while it is traced, and this one would "
        f"need {_percent(cost.cpu_share_during)} of a core then, more than {_bearable(cost)}; {cut}"
    )


def _bearable(cost: Estimate) -> str:
    quota = "" if cost.core_left >= 1 else f" of the {_percent(cost.core_left)} that its quota of CPU time leaves it"
    return f"{_percent(SATURATED)}{quota}"


def _percent(share: float | None) -> str:
    return "an unknown part" if share is None else f"{100 * share:.0f} %"


def _traced_blocks(method: Method, load: Load) -> float:
    """An upper bound of the traced blocks at a window's end: the live blocks, or those that its seconds allow to be made."""
    if method.tracer is None:
        return 0.0
    return min(_live_blocks(load), method.seconds * _BLOCKS_PER_SECOND)


def _reading_seconds(method: Method, load: Load, traced: float) -> float:
    if not method.forks:
        return 0.0
    cpu = _CENSUS_SECONDS * _live_blocks(load) if method.census else _SNAPSHOT_SECONDS * traced
    return round(cpu * (1 + _NICER * (load.contention - 1)), 1)


def _live_blocks(load: Load) -> float:
    return load.rss_bytes / _BYTES_PER_BLOCK if load.live_blocks is None else load.live_blocks


def _ending_ms_per_million(method: Method) -> float:
    if method.tracer == "tracemalloc":
        shared = _SHARED_PAGES_MS if method.forks else 0.0
        return _TRACEMALLOC_END_MS + _TRACEMALLOC_END_MS_PER_FRAME * method.frames + shared
    if method.tracer == "memray":
        return _AGGREGATED_END_MS if method.aggregated else _FULL_END_MS
    return 0.0


def _memory_bytes(method: Method, load: Load, traced: float) -> int:
    if method.tracer == "tracemalloc":
        needed = (_TRACEMALLOC_BYTES + _SNAPSHOT_BYTES) * traced
    elif method.tracer == "memray":
        needed = _MEMRAY_BYTES + (_AGGREGATED_BYTES if method.aggregated else _FULL_BYTES) * traced
    else:
        needed = 0.0
    if method.forks:
        # Pages written while both live are copied: those that the service writes to, and in a census, which changes every
        # object's reference count, nearly all.
        needed += load.rss_bytes * (1.0 if method.census else 0.1)
    return int(needed)


def _disk_bytes(method: Method) -> int:
    capture_bytes = (
        int(method.seconds * _FULL_DISK_PER_SECOND) if method.tracer == "memray" and not method.aggregated else 0
    )
    pages = (3 if method.aggregated else 4) if method.tracer == "memray" else 0
    return capture_bytes + _PROFILE_DISK + (_FLAME_DISK + pages * _PAGE_DISK if method.renders else 0)


def _interpolated(points: tuple[tuple[int, float], ...], x: int) -> float:
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (max(x, x0) - x0) / (x1 - x0)
    return points[-1][1]
