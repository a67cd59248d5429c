"""A tracemalloc window: begin, wait outside, snapshot in a forked child, end.

`take_snapshot` holds the GIL for 0.4 s per million blocks, so it runs in a child, where it stalls nobody. In the child
tracing is stopped before the statistics are made: that makes them ten times faster.
"""

from __future__ import annotations

import _tracemalloc  # the part in C, which is in every Python; the rest brings pickle and is loaded with a window
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["NOT_COVERED", "begin", "counted_bytes", "end", "snapshot"]

NOT_COVERED = (
    "memory allocated before the window began, or by C libraries that bypass Python's allocators",
    "memory allocated and freed within the window: only what is still held at its end is seen",
)

# What the agent's own thread allocates while it opens and closes the window is not the service's.
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
        "operations.py",
        "servers/__init__.py",
        "servers/aiohttp.py",
        "servers/granian.py",
        "servers/hypercorn.py",
        "servers/reach.py",
        "servers/releases.py",
        "servers/sanic.py",
        "servers/tasks.py",
        "servers/tornado.py",
        "servers/uvicorn.py",
        "state.py",
        "thrift.py",
        "windows.py",
        "readings/allocation/allocators.py",
        "readings/allocation/heap.py",
        "readings/allocation/malloc.py",
        "readings/allocation/tracemalloc.py",
    )
)


def counted_bytes() -> int:
    """What tracemalloc counts of its own tables, 0 while it does not trace; see analysis.balance for what they really take."""
    return _tracemalloc.get_tracemalloc_memory() if _tracemalloc.is_tracing() else 0


def begin(frames: int) -> bool:
    """Trace from now on; False where the service does so already (PYTHONTRACEMALLOC): its own traces are left alone."""
    import tracemalloc  # now, not in the child, where another thread's import may have left a lock

    if tracemalloc.is_tracing():
        return False
    tracemalloc.start(frames)
    return True


def end() -> None:
    """Forget all traces; 24 ms per million blocks with one frame."""
    _tracemalloc.stop()


def snapshot(seconds: float, let_go: Callable[[], None]) -> dict[str, Any]:
    """What is still held of all that was allocated in the window, as Profile JSON. To be called in a forked child.

    `let_go` is called as soon as the tracer's own memory is no longer shared with the parent.
    """
    import tracemalloc

    traces = tracemalloc.take_snapshot()
    tracemalloc.stop()
    let_go()
    sums: dict[Any, list[int]] = {}
    # `traces._traces` holds plain tuples; the public view wraps each in an object and takes ten times as long.
    rows: Any = traces.traces
    for _domain, size, stack, *_ in rows._traces:
        held = sums.setdefault(stack, [0, 0])
        held[0] += size
        held[1] += 1
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
        # tracemalloc records files and lines; it never knows the function.
        "frames": [["", file, line] for file, line in index],
        "samples": samples,
        "time": time.time(),
        "duration": seconds,
        "not_covered": list(NOT_COVERED),
        "meta": {"frames": traces.traceback_limit},
    }
