"""The causes that a verdict can have: one table that the checks, the remedies and the documentation are made from.

A new cause is one entry here and one section in docs/verdict.md; a test compares the two, and the table of that page with
`needs` and `certain`. `URL` in a command stands for the monitor's address.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from . import growth, mapped, no_growth, other_processes, streams, tasks, tracers
from .finding import Finding
from .readings import Readings

__all__ = ["CAUSES", "Cause"]

Check = Callable[[Readings], Finding | None]


@dataclass(frozen=True, slots=True)
class Cause:
    """`alarm`: whether somebody has to do something. `checks` look for it, in this order; none: it is told of the service as a
    whole, or where no check found anything. `needs` and `certain` are a row of the table in docs/verdict.md: the numbers that
    it stands on, and when it is said with high confidence."""

    title: str
    alarm: bool
    command: str
    fix: str
    needs: str
    certain: str
    checks: tuple[Check, ...] = ()

    @staticmethod
    def docs(word: str) -> str:
        """A page of this project, with the cause's section."""
        return f"docs/verdict.md#{word.replace('_', '-')}"


# In the order in which causes hide others: a tracer's tables look like a leak, buffers like retained objects.
CAUSES: Final[dict[str, Cause]] = {
    "tracer_growth": Cause(
        "Diagnostics or telemetry holds the memory",
        True,
        "diagnostics status URL",
        "End the tracer's window; bound the exporter's queue; take ids and free strings out of labels.",
        "part `tracers` of 8 MiB and 5 % of RSS, or a capture with telemetry in it",
        "always: it is measured",
        (tracers.tracer, tracers.telemetry),
    ),
    "buffering": Cause(
        "Streams are buffered",
        True,
        "diagnostics capture URL --kind retained",
        "Bound what one stream may hold, and end clients that take nothing.",
        "bytes of open streams by layer, 128 KiB a stream on average and 8 MiB in all; or growth that streams alone keep alive",
        "a layer is counted, a `retained` capture was taken, or an `objects` capture shows most of what grew so",
        (streams.buffering,),
    ),
    "unclosed_upstreams": Cause(
        "Upstreams stay open",
        True,
        "diagnostics capture URL --kind tasks",
        "Close the upstream's response in the scope that opened it, and watch http.disconnect while it is read.",
        "streams whose client left 5 s ago, or connections to others that grow",
        "the streams are seen",
        (streams.upstreams,),
    ),
    "orphan_tasks": Cause(
        "Tasks outlive their streams",
        True,
        "diagnostics capture URL --kind tasks",
        "Start tasks in the stream's scope (a task group) and cancel them where it ends.",
        "unfinished tasks that grow by 20, and neither open streams nor clients' connections that do",
        "a `tasks` capture shows that half of them run one coroutine that nothing awaits, or that nothing can wake",
        (tasks.tasks,),
    ),
    "thread_growth": Cause(
        "Threads are started and do not end",
        True,
        "diagnostics capture URL --kind tasks",
        "Use one executor with a bound on its threads, and shut it down; give every wait of a thread a deadline.",
        "threads that grow by 20, and neither open streams nor clients' connections that do",
        "a `tasks` capture shows that half of them run one function",
        (tasks.threads,),
    ),
    "uncollected_garbage": Cause(
        "Garbage is never collected",
        True,
        "diagnostics capture URL --kind objects --seconds 30",
        "Let gc run (gc.enable(), a threshold above 0), or call gc.collect() where a pause does no harm; or break the cycles. "
        "What gc.DEBUG_SAVEALL keeps: gc.set_debug(0), and gc.garbage.clear().",
        "as waiting-garbage, and a collector that is off and was not called since memory began to grow, or keeps what it finds",
        "always: it is measured",
        (growth.uncollected,),
    ),
    "waiting_garbage": Cause(
        "Garbage waits for the collector",
        False,
        "diagnostics capture URL --kind objects --seconds 30",
        "Break the cycles (weakref, `del` of a caught exception, close()), or let gc run more often: it is frozen, or rare.",
        "in-use memory that grows, and an `objects` capture with most of it in cycles that nothing reaches",
        "never",
        (growth.garbage,),
    ),
    "retained_objects": Cause(
        "Objects are retained",
        True,
        "diagnostics capture URL --kind objects --seconds 10",
        "Find the container on the path that the capture names; remove entries where the stream ends, or bound it.",
        "in-use memory that grows, at least half of it in Python's objects",
        "an `objects` capture shows one type that accounts for half of it, and one path to half of those",
        (growth.retained,),
    ),
    "native_growth": Cause(
        "Memory grows outside of Python's small objects",
        True,
        "diagnostics capture URL --kind memray --seconds 10 --native",
        "A C library, or few large buffers: the capture's native stacks name the caller; free what it allocates.",
        "in-use memory that grows, at most a quarter of it in Python's objects",
        "an `objects` capture does not show it, and malloc handed it out",
        (growth.native,),
    ),
    "shared_memory_growth": Cause(
        "Shared memory grows",
        True,
        "curl -s URL/debug/memory",
        "Close and unlink what is done with (SharedMemory.close and .unlink, mmap.close, files in a tmpfs), or use it again.",
        "RSS that grows, at least half of it in shared memory",
        "always: the kernel counts it",
        (mapped.shared,),
    ),
    "memory_growth": Cause(
        "Memory grows, and it is not known yet in what",
        True,
        "diagnostics capture URL --kind objects --seconds 30",
        "Take the capture: where Python's objects account for the growth it names them, else it is a library's.",
        "in-use memory that grows, or RSS where in-use memory varies too much to tell",
        "never: its cause is open",
        (growth.undecided,),
    ),
    "copy_on_write": Cause(
        "Shared pages turn private (copy-on-write)",
        True,
        "diagnostics status URL --watch",
        "Call gc.freeze() in the parent before it forks (gunicorn's when_ready), preload less, or mmap the data from a file.",
        "private memory that rises more than RSS does: 32 MiB and 25 % of RSS since recording began, or most of what private "
        "memory gains now",
        "the PSS of all processes rises with it",
        (other_processes.copied_pages,),
    ),
    "child_growth": Cause(
        "Memory grows in child processes",
        True,
        "DIAGNOSTICS_AGENT=always diagnostics run -- CMD",
        "Start the service with DIAGNOSTICS_AGENT=always and capture the child; or recycle children (max_tasks_per_child).",
        "memory of the worker's children that grows",
        "their PSS can be read",
        (other_processes.children,),
    ),
    "recycled_growth": Cause(
        "Workers are recycled before their growth shows",
        True,
        "diagnostics capture URL --kind objects --seconds 10",
        "Recycling hides a leak: capture a worker late in its life, and mend what each life piles up.",
        "growth within the lives of a worker that is replaced again and again",
        "in-use memory is known",
        (other_processes.recycling,),
    ),
    "cgroup_growth": Cause(
        "The cgroup grows, and its processes do not",
        True,
        "curl -s URL/debug/memory",
        "Find what writes: files in a tmpfs (/dev/shm, an emptyDir in memory), sockets that nobody reads, temporary files.",
        "of the service, not of a worker: what the limit is charged for grows, and less than half of it in processes",
        "the kernel says in which part: tmpfs, sockets, kernel, page cache",
    ),
    "whole_growth": Cause(
        "The service grows, and no worker alone",
        True,
        "curl -s URL/debug/memory",
        "Look at service.children and service.supervisors there, and at the number of processes: bound what grows.",
        "of the service, not of a worker: the PSS of several processes grows and no worker's verdict is an alarm",
        "never",
    ),
    "allocator_free": Cause(
        "The allocator keeps free memory",
        True,
        "diagnostics capture URL --kind objects --seconds 0",
        "No leak: reuse buffers, limit arenas (MALLOC_ARENA_MAX=2), or trim after a peak.",
        "free parts of the balance of 32 MiB and 25 % of RSS",
        "always: it is measured",
        (no_growth.allocator,),
    ),
    "mapped_files": Cause(
        "Mapped files become resident",
        False,
        "curl -s URL/debug/memory",
        "Nothing to fix where the file is as large as it should be: the kernel keeps its pages for as long as there is room.",
        "RSS that grows, at least half of it in mapped pages that are no shared memory",
        "always: the kernel counts it",
        (mapped.files,),
    ),
    "load_only": Cause(
        "Load only",
        False,
        "diagnostics status URL --watch",
        "Nothing to fix: memory follows the number of open streams, or does not grow by as much as matters.",
        "growth that is excluded up to what matters, or growth of at most 256 KiB for each stream or WebSocket that was opened",
        "no growth that matters can be hidden in the readings, and all causes could be looked for: tasks, private memory and "
        "children were read",
        (no_growth.load,),
    ),
    "inconclusive": Cause(
        "Inconclusive",
        False,
        "diagnostics status URL --watch",
        "Watch on, or take the capture that answers the open question.",
        "none",
        "never",
    ),
}
