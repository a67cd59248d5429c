"""What each verdict is called, the command that looks further, and the pattern of its fix: a table.

`URL` in a command stands for the monitor's address. Every word here has a section of its own in docs/verdict.md, and a
test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["REMEDIES", "Remedy"]


@dataclass(frozen=True, slots=True)
class Remedy:
    """`alarm`: whether somebody has to do something. `docs`: a page of this project, with its section."""

    title: str
    alarm: bool
    command: str
    fix: str

    def docs(self, word: str) -> str:
        return f"docs/verdict.md#{word.replace('_', '-')}"


REMEDIES: Final[dict[str, Remedy]] = {
    "buffering": Remedy(
        "Streams are buffered",
        True,
        "diagnostics capture URL --kind retained",
        "Bound what one stream may hold, and end clients that take nothing.",
    ),
    "retained_objects": Remedy(
        "Objects are retained",
        True,
        "diagnostics capture URL --kind objects --seconds 10",
        "Find the container on the path that the capture names; remove entries where the stream ends, or bound it.",
    ),
    "orphan_tasks": Remedy(
        "Tasks outlive their streams",
        True,
        "diagnostics capture URL --kind tasks",
        "Start tasks in the stream's scope (a task group) and cancel them where it ends.",
    ),
    "unclosed_upstreams": Remedy(
        "Upstreams stay open",
        True,
        "diagnostics capture URL --kind tasks",
        "Close the upstream's response in the scope that opened it, and watch http.disconnect while it is read.",
    ),
    "copy_on_write": Remedy(
        "Shared pages turn private (copy-on-write)",
        True,
        "diagnostics status URL --watch",
        "Call gc.freeze() in the parent before it forks (gunicorn's when_ready), preload less, or mmap the data from a file.",
    ),
    "child_growth": Remedy(
        "Memory grows in child processes",
        True,
        "diagnostics status URL --watch",
        "Start the service with DIAGNOSTICS_AGENT=always and capture the child; or recycle children (max_tasks_per_child).",
    ),
    "recycled_growth": Remedy(
        "Workers are recycled before their growth shows",
        True,
        "diagnostics capture URL --kind objects --seconds 10",
        "Recycling hides a leak: capture a worker late in its life, and mend what each life piles up.",
    ),
    "whole_growth": Remedy(
        "The service grows, and no worker alone",
        True,
        "curl -s URL/debug/memory",
        "Look at service.children and service.supervisors there, and at the number of processes: bound what grows.",
    ),
    "allocator_free": Remedy(
        "The allocator keeps free memory",
        True,
        "diagnostics capture URL --kind objects --seconds 0",
        "No leak: reuse buffers, limit arenas (MALLOC_ARENA_MAX=2), or trim after a peak.",
    ),
    "native_growth": Remedy(
        "Memory grows outside of Python's small objects",
        True,
        "diagnostics capture URL --kind memray --seconds 10 --native",
        "A C library, or few large buffers: the capture's native stacks name the caller; free what it allocates.",
    ),
    "tracer_growth": Remedy(
        "Diagnostics or telemetry holds the memory",
        True,
        "diagnostics status URL",
        "End the tracer's window; bound the exporter's queue; take ids and free strings out of labels.",
    ),
    "load_only": Remedy(
        "Load only",
        False,
        "diagnostics status URL --watch",
        "Nothing to fix: memory follows the number of open streams, or does not grow.",
    ),
    "inconclusive": Remedy(
        "Inconclusive",
        False,
        "diagnostics status URL --watch",
        "Watch on, or take the capture that answers the open question.",
    ),
}
