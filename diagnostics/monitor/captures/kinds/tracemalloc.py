"""tracemalloc: blocks that Python code allocated in the window and had not freed at its end.

Works in every CPython without any package. A queue-heavy loop takes five times its CPU time with one frame, 38 times with 25:
short windows, few frames.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ....analysis.cost import Method
from .kind import Kind, Session
from .options import WINDOW_OPTIONS, boolean, capture_id, integer
from .profile_json import top_of

__all__ = ["KIND"]

# Starting the tracer needs the GIL for a moment; a snapshot of millions of blocks in the child takes a minute or more.
_BEGIN_SECONDS = 10.0
_SNAPSHOT_SECONDS = 150.0


async def take(session: Session) -> dict[str, Any]:
    window, frames = session.options["seconds"], session.options["frames"]
    await session.worker.ask("tracemalloc.begin", patience=_BEGIN_SECONDS, seconds=window, frames=frames)
    await session.wait(window)
    profile = await session.ask_reading("tracemalloc.finish", patience=_SNAPSHOT_SECONDS)
    session.enter("rendering")
    (session.folder / "profile.json").write_text(json.dumps(profile), encoding="utf-8")
    return {
        "seconds": profile["duration"],
        "sample_types": profile["sample_types"],
        "total_bytes": sum(values[0] for _stack, values, _labels in profile["samples"]),
        "total_count": sum(values[1] for _stack, values, _labels in profile["samples"]),
        "top": top_of(profile),
        "not_covered": profile["not_covered"],
    }


def _method(options: Mapping[str, Any]) -> Method:
    return Method(
        tracer="tracemalloc",
        seconds=options["seconds"],
        frames=options["frames"],
        census=False,
        renders=options["render"],
    )


KIND = Kind(
    name="tracemalloc",
    options={
        **WINDOW_OPTIONS,
        "frames": (5, integer(1, 25)),
        "diff": (None, capture_id),
        "render": (True, boolean),
    },
    take=take,
    method=_method,
)
