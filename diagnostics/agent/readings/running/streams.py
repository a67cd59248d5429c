"""The open streams and the roots of each: the tasks that serve it, their contexts, its connection.

Streams come from the ledger. A task belongs to a stream if its context carries the stream's record (the middleware sets it,
and every task that is created while serving inherits it), if it opened the record, or if a task of the stream refers to it.
Where there is no ledger, the requests that the servers of this process serve are the streams: those whose response has begun
and not ended.
"""

from __future__ import annotations

import contextvars
import gc
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ...ledger import StreamLedger
from ...loops.asyncio_tasks import alive_tasks
from ...loops.coroutines import coroutine_of
from ...loops.frames import locals_of
from ...loops.futures import is_task, members_of
from ...record import StreamRecord
from ...routes import route_of
from ...servers import Servers
from ...servers.snapshot import ServerLook
from ...servers.tasks import TaskServers
from ...servers.uvicorn import belongings_of, cycle_of
from ..classes import module_of
from .awaits import chain, own_frame

__all__ = ["OpenStream", "context_of", "open_streams", "openers", "parts_of", "record_of", "why_unknown"]

# A child task is a local, or in a list, task group or gather future, or in a list of those.
_CHILD_DEPTH = 3
_MAX_LOOKED_AT = 500
UNROUTED = "(unrouted)"


@dataclass(eq=False)
class OpenStream:
    """One stream and its roots: objects reached only from these belong to the stream.

    id      the ledger's number, or the serving task's name where there is no ledger
    things  the server's objects for the request, where there is no ledger
    frames  the coroutines and generators on its tasks' await chains: the stream's, even if something else refers to them
    """

    id: int | str
    route: str
    state: str
    age_seconds: float | None
    roots: list[Any] = field(default_factory=list)
    things: list[Any] = field(default_factory=list)
    frames: list[Any] = field(default_factory=list)


def context_of(task: Any) -> contextvars.Context | None:
    """The context that a task runs in; before Python 3.12 only `gc.get_referents` shows it."""
    get_context = getattr(task, "get_context", None)
    if get_context is not None:
        context = get_context()
        return context if isinstance(context, contextvars.Context) else None
    # Done callbacks have contexts, too. The task's own comes first.
    return next((thing for thing in gc.get_referents(task) if isinstance(thing, contextvars.Context)), None)


def record_of(task: Any, ledgers: Iterable[StreamLedger]) -> StreamRecord | None:
    """The open record that this task's context carries."""
    context = context_of(task)
    if context is None:
        return None
    # Two copies of this package may be loaded, each with a ContextVar of its own: compared by name, not identity.
    for variable, value in context.items():
        if variable.name != "diagnostics_stream" or value is None:
            continue
        if any(ledger.records.get(value.id) is value for ledger in ledgers):
            return value  # type: ignore[no-any-return]  # it is in a ledger, so it is a record
    return None


def openers(ledgers: Iterable[StreamLedger]) -> dict[int, list[StreamRecord]]:
    """The tasks that opened records: id of the task -> its records."""
    by_task: dict[int, list[StreamRecord]] = {}
    for ledger in ledgers:
        for record in list(ledger.records.values()):
            opener = record.task() if record.task is not None else None
            if opener is not None:
                by_task.setdefault(id(opener), []).append(record)
    return by_task


def why_unknown(ledgers: Iterable[StreamLedger]) -> str:
    """Why `open_streams` cannot find the open streams; empty where it finds all."""
    if list(ledgers):
        return ""
    servers = Servers()
    if servers.look() is not None:
        return servers.unseen or ""
    why = (
        "the open streams of this process are not known one by one: it keeps no ledger, and no server that is known serves it; "
        "an ASGI app has one with instrument(app)"
    )
    return f"{why}; {servers.unseen}" if servers.unseen else why


def open_streams(ledgers: list[StreamLedger]) -> list[OpenStream]:
    """All open streams with their roots. An object that would be a root of two streams is a root of neither."""
    tasks = [task for task in alive_tasks() if not task.done()]
    streams = _of_ledgers(ledgers, tasks) if ledgers else [*_of_uvicorn(tasks), *_of_task_servers(tasks)]
    for stream in streams:
        for task in list(stream.roots):
            stream.roots.extend(child for child in _children(task) if child not in stream.roots)
        for task in list(stream.roots):
            stream.roots.extend(_belongings(task))
            stream.frames.extend(link for link in chain(coroutine_of(task)) if own_frame(link) is not None)
        stream.roots.extend(stream.things)
    owners: dict[int, set[int]] = {}
    for number, stream in enumerate(streams):
        for root in (*stream.roots, *stream.frames):
            owners.setdefault(id(root), set()).add(number)
    for stream in streams:
        stream.roots = [root for root in stream.roots if len(owners[id(root)]) == 1]
        stream.frames = [frame for frame in stream.frames if len(owners[id(frame)]) == 1]
    return streams


def parts_of(streams: Iterable[OpenStream]) -> dict[int, int]:
    """Ids of the streams' roots and frames -> the number of the stream, from 0."""
    return {id(part): number for number, stream in enumerate(streams) for part in (*stream.roots, *stream.frames)}


def _of_ledgers(ledgers: list[StreamLedger], tasks: list[Any]) -> list[OpenStream]:
    streams: dict[int, OpenStream] = {}
    for ledger in ledgers:
        for record in list(ledger.records.values()):
            age = record.clock() - record.opened_at
            stream = streams[id(record)] = OpenStream(record.id, record.route, record.state, age)
            opener = record.task() if record.task is not None else None
            if opener is not None:
                stream.roots.append(opener)
    for task in tasks:
        record_served = record_of(task, ledgers)
        if record_served is not None and task not in streams[id(record_served)].roots:
            streams[id(record_served)].roots.append(task)
    return list(streams.values())


def _of_uvicorn(tasks: list[Any]) -> list[OpenStream]:
    streams = []
    for task in tasks:
        cycle = cycle_of(task)
        if cycle is not None and cycle.response_started and not cycle.response_complete:
            state = "disconnected" if cycle.disconnected else "streaming"
            streams.append(OpenStream(task.get_name()[:60], route_of(cycle.scope) or UNROUTED, state, None, [task]))
    return streams


def _of_task_servers(tasks: list[Any]) -> list[OpenStream]:
    look = ServerLook(time.monotonic())
    TaskServers(time.monotonic).read(look, alone=True)
    serving = {id(task): task for task in tasks}
    streams = []
    for request in look.requests:
        task, thing = serving.get(request.task), request.thing()
        if task is None or thing is None or request.started is False:
            continue
        age = max(0.0, look.now - request.since) if request.since_begun else None
        stream = OpenStream(task.get_name()[:60], request.route, "streaming", age, [task])
        if thing is not task:
            stream.things.append(thing)
        streams.append(stream)
    return streams


def _belongings(task: Any) -> Iterator[Any]:
    context = context_of(task)
    if context is not None:
        yield context
    yield from belongings_of(task)


def _children(task: Any) -> list[Any]:
    """The tasks that locals of this task's frames refer to: awaited, gathered, or in a task group."""
    tasks: list[Any] = []
    for link in chain(coroutine_of(task)):
        frame = own_frame(link)
        if frame is None:
            if is_task(link):
                tasks.append(link)
            continue
        tasks.extend(_tasks_near(list(locals_of(frame).values())))
    return [child for child in tasks if child is not task and not child.done() and cycle_of(child) is None]


def _tasks_near(values: list[Any]) -> Iterator[Any]:
    level, looked_at = values, 0
    for _depth in range(_CHILD_DEPTH):
        following: list[Any] = []
        for value in level:
            looked_at += 1
            if looked_at > _MAX_LOOKED_AT:
                return
            if is_task(value):
                yield value
            else:
                following.extend(_held_children(value))
        level = following


def _held_children(value: Any) -> Iterable[Any]:
    """The members of a list, task group or gather future. Not of dictionaries: those mostly hold shared state."""
    kind = type(value)
    if kind in (list, tuple, set, frozenset):
        return value if len(value) <= _MAX_LOOKED_AT else ()
    if module_of(kind).partition(".")[0] in ("asyncio", "anyio"):
        return members_of(value)
    return ()
