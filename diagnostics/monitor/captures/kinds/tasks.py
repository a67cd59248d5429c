"""tasks: every asyncio task by the stack where it waits, and every thread. No window; the option `seconds` is a delay before
the reading.

Artifacts: `profile.json` (tasks/count, for flame graphs and pprof), `tasks.json` (the groups with all their fields) and
`tasks.txt` (for people, like a goroutine dump).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from ....analysis.cost import Method
from .kind import Kind, Session
from .options import boolean, seconds_or_now
from .profile_json import profile_of, write_json
from .tables import Column, text_of

__all__ = ["KIND", "as_text"]

_PATIENCE_SECONDS = 45.0
_TOP = 20
# Files whose frames are at the bottom of most threads' stacks.
_OF_THREADS = frozenset({"threading.py", "thread.py", "_base.py"})


async def take(session: Session) -> dict[str, Any]:
    await session.wait(session.options["seconds"])
    fork = session.options["fork"]
    reply = await session.ask_reading("tasks", patience=_PATIENCE_SECONDS, fork=fork, leaks=fork)
    session.enter("rendering")
    groups, threads = reply["groups"], reply["threads"]
    write_json(session.folder / "profile.json", profile_of(reply))
    write_json(session.folder / "tasks.json", {key: reply[key] for key in ("time", "meta", "groups", "threads")})
    (session.folder / "tasks.txt").write_text(as_text(groups, threads, reply["meta"]["unknown"]), encoding="utf-8")
    return {
        "total_bytes": None,  # tasks are counted; `retained` has the bytes
        "total_count": reply["meta"]["tasks"],
        "unknown": reply["meta"]["unknown"],
        "states": reply["meta"]["states"],
        "threads": len(threads),
        "not_awaited": sum(group["count"] for group in groups if group["orphan"]),
        "leaked": reply["meta"]["leaked"],
        "thread_groups": thread_groups(threads)[:_TOP],
        "in_process": reply.get("in_process", False),
        "top": [_row(group) for group in groups[:_TOP]],
        "not_covered": reply["not_covered"],
    }


def as_text(groups: Iterable[dict[str, Any]], threads: Iterable[dict[str, Any]], unknown: str | None = None) -> str:
    """One paragraph a group, the largest first, innermost frame on top; then the threads. `unknown`: why tasks are unknown."""
    paragraphs = [f"asyncio tasks are unknown: {unknown}"] if unknown else []
    for group in groups:
        facts = [group["state"], f"loop {group['loop']}", _awaited(group)]
        if group.get("leaked"):
            facts.append("nothing can wake them")
        if group["waits_for"]:
            facts.append(f"waits for {group['waits_for']}")
        if group["oldest_seconds"] is not None:
            facts.append(f"oldest {group['oldest_seconds']:.1f} s")
        facts += [f"{count} in {route}" for route, count in group["routes"].items()]
        lines = [f"{group['count']} tasks {group['name']!r} ({', '.join(facts)})", *_stack(group["stack"])]
        if group["callbacks"]:
            lines.append(f"    when done: {', '.join(group['callbacks'])}")
        created = _stack(group["created"] or [])
        lines += ["    created at", *created] if created else ["    created at an unknown place"]
        paragraphs.append("\n".join(lines))
    paragraphs += ["\n".join([f"thread {thread['name']!r}", *_stack(thread["stack"][::-1])]) for thread in threads]
    return "\n\n".join(paragraphs) + "\n"


def _stack(frames: Iterable[Any]) -> list[str]:
    return [f"    {function}  {file}:{line}" for function, file, line in frames]


def _awaited(group: dict[str, Any]) -> str:
    if group["awaited_by"]:
        return f"awaited by {', '.join(group['awaited_by'])}"
    return "not awaited by any task" if group["orphan"] else "ended"


def _row(group: dict[str, Any]) -> dict[str, Any]:
    function, file, line = group["stack"][0] if group["stack"] else ("", "", 0)
    # The innermost frames are often asyncio's: the first other frame shows where the task waits.
    caller = next((frame for frame in group["stack"] if not _is_machinery(frame)), None)
    # The outermost frame of a task in anyio's task group is anyio's: the first other frame shows what the task runs.
    runs = next((frame for frame in reversed(group["stack"]) if not _is_machinery(frame)), None)
    return {
        "function": function,
        "file": file,
        "line": line,
        "bytes": None,
        "count": group["count"],
        "state": group["state"],
        "name": group["name"],
        "task": (runs or group["stack"][-1])[0] if group["stack"] else "",
        "waits_in": f"{caller[0]} ({PurePath(caller[1]).name}:{caller[2]})" if caller else "",
        "orphan": group["orphan"],
        "leaked": group["count"] if group["leaked"] else None if group["leaked"] is None else 0,
        "awaited_by": _awaited(group),
    }


def _is_machinery(frame: Any) -> bool:
    """Whether a frame is asyncio's or anyio's own."""
    return not {"asyncio", "anyio"}.isdisjoint(PurePath(frame[1]).parts[-4:-1])


def thread_groups(threads: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Threads that run the same function and wait at the same place, the largest group first: {"count", "runs", "waits_in"}.

    A thread of a pool that has no work runs nobody's function: its name, without numbers, is what it is known by.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for thread in threads:
        stack = thread["stack"]
        own = [frame for frame in stack if PurePath(frame[1]).name not in _OF_THREADS]
        if stack:
            runs = _place(own[0]) if own else f"nothing, as {thread['name']!r}"
            counts[runs, _place((own or stack)[-1])] += 1
    return [{"count": count, "runs": runs, "waits_in": waits} for (runs, waits), count in counts.most_common()]


def _place(frame: Any) -> str:
    return f"{frame[0]} ({PurePath(frame[1]).name}:{frame[2]})"


def _headline(result: dict[str, Any]) -> str:
    if result["total_count"] is None:
        return f"tasks unknown: {result['unknown']}; {result['threads']} threads"
    leaked = f", {result['leaked']} that nothing can wake" if result.get("leaked") else ""
    tasks = f"{result['total_count']} tasks, {result['not_awaited']} not awaited by any task{leaked}"
    return f"{tasks}; {result['threads']} threads"


def _method(options: Mapping[str, Any]) -> Method:
    return Method(forks=options["fork"], census=False)


KIND = Kind(
    name="tasks",
    options={"seconds": (0.0, seconds_or_now), "fork": (True, boolean)},
    take=take,
    method=_method,
    headline=_headline,
    columns=(
        Column("tasks", text_of("count")),
        Column("state", text_of("state"), right=False),
        Column("name", text_of("name"), right=False),
        Column("runs", text_of("task"), right=False),
        Column("waits in", text_of("waits_in"), right=False),
        Column("", text_of("awaited_by"), right=False),
    ),
)
