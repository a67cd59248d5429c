"""A tracemalloc window: `begin`, `snapshot` in a forked child, `end`. The caller waits between them.

`take_snapshot` holds the GIL for 0.4 s per million blocks, so it runs in a child and does not stall the service. In the child
tracing is stopped before the statistics are made: that makes them ten times faster.
"""

from __future__ import annotations

import _tracemalloc  # the C part, always built in; `tracemalloc` imports pickle, and is imported with a window
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["NOT_COVERED", "begin", "end", "snapshot"]

NOT_COVERED = (
    "memory allocated before the window began, or by C libraries that bypass Python's allocators",
    "memory allocated and freed within the window: only what is still held at its end is seen",
)

# The agent's own allocations while it opens and closes the window are left out.
_AGENT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
_OWN_FILES = frozenset(
    os.path.join(_AGENT, name)
    for name in (
        "endpoint.py",
        "forked.py",
        "loops/asyncio_tasks.py",
        "loops/lag.py",
        "loops/running.py",
        "loops/search.py",
        "loops/task_sets.py",
        "loops/tasks_by_loop.py",
        "operations/__init__.py",
        "operations/captures.py",
        "operations/ledgers.py",
        "operations/readings.py",
        "reading_cache.py",
        "servers/__init__.py",
        "servers/aiohttp.py",
        "servers/granian.py",
        "servers/hypercorn.py",
        "servers/loaded.py",
        "servers/reach.py",
        "servers/releases.py",
        "servers/sanic.py",
        "servers/tasks.py",
        "servers/tornado.py",
        "servers/uvicorn.py",
        "state.py",
        "windows.py",
        "readings/allocation/allocators.py",
        "readings/allocation/by_ctypes.py",
        "readings/allocation/heap.py",
        "readings/allocation/malloc.py",
        "readings/allocation/tracemalloc.py",
    )
)


def begin(frames: int) -> bool:
    """Start tracing; False where the service traces already (PYTHONTRACEMALLOC): its own traces are left alone."""
    import tracemalloc  # not in the child: another thread may hold the import lock at the fork

    if tracemalloc.is_tracing():
        return False
    tracemalloc.start(frames)
    return True


def end() -> None:
    """Stop tracing and free all traces; 24 ms per million blocks with one frame."""
    _tracemalloc.stop()


def snapshot(seconds: float, let_go: Callable[[], None]) -> dict[str, Any]:
    """Blocks allocated in the window and not freed, as Profile JSON. To be called in a forked child.

    seconds   length of the window
    let_go    called as soon as the child no longer shares the tracer's memory with the parent
    """
    import tracemalloc

    traces = tracemalloc.take_snapshot()
    tracemalloc.stop()
    let_go()
    sums: dict[Any, list[int]] = {}
    # `traces._traces` holds plain tuples; the public view wraps each in an object and takes ten times as long.
    rows: Any = traces.traces
    for _domain, size, stack, *_ in rows._traces:
        sum_of_stack = sums.setdefault(stack, [0, 0])
        sum_of_stack[0] += size
        sum_of_stack[1] += 1
    index: dict[tuple[str, int], int] = {}
    samples = []
    for stack, values in sums.items():
        if any(file in _OWN_FILES for file, _line in stack):
            continue
        samples.append([[index.setdefault(frame, len(index)) for frame in stack], values, {}])
    return {
        "schema": "highwater.profile/1",
        "kind": "tracemalloc",
        "sample_types": [["inuse_space", "bytes"], ["inuse_objects", "count"]],
        # tracemalloc records files and lines, no functions.
        "frames": [["", file, line] for file, line in index],
        "samples": samples,
        "time": time.time(),
        "duration": seconds,
        "not_covered": list(NOT_COVERED),
        "meta": {"frames": traces.traceback_limit},
    }
