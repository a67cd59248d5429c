"""/debug/pprof/: profiles as Go's net/http/pprof serves them, for the tools that know those addresses.

    go tool pprof -top http://127.0.0.1:6060/debug/pprof/heap
    curl -s 'http://127.0.0.1:6060/debug/pprof/goroutine?debug=2'

| parameter | |
|---|---|
| seconds | heap, allocs: of the live heap the change in that time; else the length of the window, 5 by default |
| gc=1 | a garbage collection before it; it stalls the service for 50 to 100 ms per million objects |
| debug=1, debug=2 | text instead of profile.proto: 1 one line for each stack, 2 whole stacks |
| worker | its number, where there are several |
| force=1 | even if it would be too costly now |

A window is begun only for clients that may capture, and never for a page of another origin: a program with DIAGNOSTICS_TOKEN
(or, where no token is set, any program), or a page of the monitor's own. A client that may only read gets the last window's
profile, of any age, or an error that says how to get one. `go tool pprof` takes the token in the address:
http://TOKEN@127.0.0.1:6060/debug/pprof/heap. Reading all tasks has a cost for the service, too, and needs the same right.

heap and allocs are the worker's live heap where it keeps one (DIAGNOSTICS_HEAP): live blocks allocated since sampling began,
read from its shared table. That costs the service nothing, so every client that may read gets it. The profile's kind is
`heap` then, and its comments have the rate and what it does not cover.

Otherwise heap and allocs differ from Go's: they are a window and not a count since the start, because nothing is traced
between windows; and a profile younger than the minimum interval is returned again, as its `time` and the header `Age` show.
An error is text with the header X-Go-Pprof, which makes `go tool pprof` show it. Source: https://pkg.go.dev/net/http/pprof
and its handlers.
"""

from __future__ import annotations

import asyncio
import html
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ....analysis import heap
from ....analysis.formats import pprof
from ....analysis.formats.text import render_lines, render_stacks
from ....analysis.profile import Frame, Profile, Sample
from ....errors import DiagnosticsError, NotFoundError, RefusedError, TargetError, UsageError
from ...audit import Asker, Audit
from ...captures.kinds.options import DEFAULT_SECONDS, MAX_SECONDS
from ...captures.profiles import Taken, WindowProfiles
from ...recording import live_heap
from ...workers.targets import Targets, Worker
from ..access import asker_of, may_start
from ..leaving import until_left

__all__ = ["PROFILES", "routes"]

T = TypeVar("T")
_TASKS_PATIENCE_SECONDS = 30.0
_MAX_DIGITS = 20
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Query:
    """A request's parameters, checked. `delta`: whether it has `seconds`."""

    worker: Worker
    seconds: float
    delta: bool
    collect: bool
    force: bool
    debug: int
    may_start: bool
    asker: Asker


@dataclass(frozen=True)
class Answer:
    """A profile; `packed`: the same as gzipped profile.proto; `age` in seconds."""

    packed: bytes
    profile: Callable[[], Profile]
    age: float = 0.0


class _Source:
    """Makes the profiles: from windows, live heaps and readings of tasks."""

    def __init__(self, targets: Targets, windows: WindowProfiles, audit: Audit) -> None:
        self.targets = targets
        self.windows = windows
        self._audit = audit
        self._tasks: dict[tuple[int, str], tuple[float, Profile]] = {}  # (pid, name) -> (wall-clock time, last profile)

    async def heap(self, name: str, query: Query) -> Answer:
        """The live heap where the worker keeps one, else a window."""
        table = await asyncio.to_thread(live_heap.of_worker, query.worker)
        if table is None:
            return await self.window(name, query)
        if query.collect and query.may_start:
            await query.worker.ask("gc.collect", patience=30.0)
            table = await asyncio.to_thread(live_heap.of_worker, query.worker) or table
        allocs, began = name == "allocs", time.time()
        if query.delta:
            await asyncio.sleep(query.seconds)
            after = await asyncio.to_thread(live_heap.of_worker, query.worker)
            if after is None:
                raise TargetError(
                    f"the table of worker {query.worker.name} has gone meanwhile",
                    remedy="the process has ended, or another tool has taken the hooks out of Python's allocators",
                )
            now = time.time()
            profile = heap.since(after, table, now=now, seconds=now - began, allocs=allocs)
        else:
            profile = heap.profile(table, now=began, allocs=allocs)
        return Answer(await asyncio.to_thread(pprof.encode, profile), lambda: profile)

    async def window(self, name: str, query: Query) -> Answer:
        if not query.may_start:
            kept = self.windows.kept(name, query.worker)
            if kept is None:
                raise _none_yet(name, query)
            return _of_window(kept)
        before = self.windows.kept(name, query.worker)
        taken = await self.windows.get(
            name, query.worker, seconds=query.seconds, collect=query.collect, force=query.force
        )
        if taken is not before:
            facts = {"profile": name, "worker": query.worker.name, "seconds": query.seconds, "force": query.force}
            self._audit.note("window", "done", query.asker, **facts)
        return _of_window(taken)

    async def tasks(self, name: str, query: Query) -> Answer:
        async def read() -> Profile:
            listing = await query.worker.ask("tasks", patience=_TASKS_PATIENCE_SECONDS)
            return _with_threads(Profile.from_json(listing), listing.get("threads", ()))

        return await self._last_or(name, query, read)

    async def leaked_tasks(self, name: str, query: Query) -> Answer:
        async def read() -> Profile:
            listing = await query.worker.ask("tasks", patience=_TASKS_PATIENCE_SECONDS, leaks=True)
            meta = listing["meta"]
            if meta["leaked"] is None:
                raise TargetError(
                    f"which tasks nothing can wake is unknown: {meta['unknown'] or meta['leaked_unknown']}",
                    remedy="/debug/pprof/goroutine shows all tasks, with what awaits them",
                )
            profile = Profile.from_json(listing)
            leaked = tuple(sample for sample in profile.samples if ("leaked", "yes") in sample.labels)
            return replace(profile, samples=leaked)

        return await self._last_or(name, query, read)

    async def _last_or(self, name: str, query: Query, read: Callable[[], Awaitable[Profile]]) -> Answer:
        """The profile that `read` returns now; where the client may not begin a reading, the last one."""
        key = (query.worker.pid, name)
        if query.may_start:
            profile = await read()
            alive = {worker.pid for worker in self.targets.workers()}
            self._tasks = {known: kept for known, kept in self._tasks.items() if known[0] in alive}
            self._tasks[key] = (time.time(), profile)
        elif key not in self._tasks:
            raise _none_yet(name, query)
        taken, kept = self._tasks[key]
        return Answer(pprof.encode(kept), lambda: kept, max(0.0, time.time() - taken))


def _of_window(taken: Taken) -> Answer:
    return Answer(
        taken.packed, lambda: Profile.from_json(json.loads(taken.profile)), max(0.0, time.time() - taken.ended)
    )


def _none_yet(name: str, query: Query) -> RefusedError:
    return RefusedError(
        f"no {name} profile of worker {query.worker.name} has been taken yet, and this request may not begin one: it comes "
        "from a browser that is on no page of this monitor, or without the right to capture",
        remedy="ask from a program, with DIAGNOSTICS_TOKEN where one is set (`curl -H 'Authorization: Bearer ...'`, or "
        "`go tool pprof http://TOKEN@HOST:PORT/debug/pprof/...`); from then on the last one is shown here",
    )


def _with_threads(profile: Profile, threads: Iterable[Mapping[str, Any]]) -> Profile:
    """`profile` with a sample for each thread, its stack reversed to leaf first."""
    samples = (
        Sample(
            stack=tuple(Frame(str(function), str(file), int(line)) for function, file, line in thread["stack"][::-1]),
            values=(1,),
            labels=(("state", "thread"), ("thread", str(thread["name"]))),
        )
        for thread in threads
    )
    return replace(profile, samples=(*profile.samples, *samples))


@dataclass(frozen=True)
class Entry:
    """One row of the table of profiles, from which the index page is built."""

    name: str
    about: str
    take: Callable[[_Source, str, Query], Awaitable[Answer]]


PROFILES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "allocs",
            "What was allocated since sampling began (without a live heap: in a window), whether it was freed or not.",
            _Source.heap,
        ),
        Entry(
            "goroutine",
            "Stacks of all asyncio tasks and threads. debug=2 shows each stack as a traceback does.",
            _Source.tasks,
        ),
        Entry(
            "heap",
            "What is alive, allocated whenever (without a live heap: in a window). gc=1 collects garbage before it.",
            _Source.heap,
        ),
        Entry(
            "taskleak",
            "Asyncio tasks that nothing can wake: what they wait for is reached from no timer, socket, thread, name or task.",
            _Source.leaked_tasks,
        ),
    )
}


def routes(targets: Targets, windows: WindowProfiles, audit: Audit) -> list[Route]:
    source = _Source(targets, windows, audit)

    async def profile(request: Request) -> Response:
        return await _answered(request, source)

    return [
        Route("/debug/pprof", lambda request: RedirectResponse("/debug/pprof/")),
        Route("/debug/pprof/", _index),
        Route("/debug/pprof/{name}", profile),
    ]


async def _index(request: Request) -> Response:
    rows = "".join(
        f'<tr><td><a href="{name}?debug=1">{name}</a></td><td><a href="{name}">profile.proto</a></td>'
        f"<td>{html.escape(entry.about)}</td></tr>"
        for name, entry in PROFILES.items()
    )
    page = (
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>/debug/pprof/</title></head><body>"
        f"<h1>/debug/pprof/</h1><table>{rows}</table>"
        "<p>heap and allocs are the live heap of a worker with DIAGNOSTICS_HEAP; ?seconds= then gives what changed meanwhile. "
        f"Without one they open a window of ?seconds={DEFAULT_SECONDS:g} for who may capture, in which the service is "
        "slower; others see the last one. "
        '<a href="/debug/memory">/debug/memory</a> shows what is known without one.</p></body></html>'
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": policy}
    return Response(page, media_type="text/html", headers=headers)


async def _answered(request: Request, source: _Source) -> Response:
    headers = {"X-Content-Type-Options": "nosniff"}
    try:
        entry = PROFILES.get(request.path_params["name"])
        if entry is None:
            raise NotFoundError(
                f"unknown profile {request.path_params['name']!r}", remedy=f"there are {', '.join(PROFILES)}"
            )
        query = _query(request, source.targets)
        answer = await _unless_they_leave(request, entry.take(source, entry.name, query))
    except DiagnosticsError as error:
        headers["X-Go-Pprof"] = "1"
        return Response(f"{error}\n", status_code=error.http_status, media_type=_TEXT, headers=headers)
    if answer is None:
        return Response(status_code=499)  # the client is gone
    headers["Age"] = str(round(answer.age))
    if query.debug:
        render = render_lines if query.debug == 1 else render_stacks
        return Response(render(entry.name, answer.profile()), media_type=_TEXT, headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{entry.name}"'
    return Response(answer.packed, media_type="application/octet-stream", headers=headers)


def _query(request: Request, targets: Targets) -> Query:
    """The request's parameters. Raises UsageError, NotFoundError (worker)."""
    given = request.query_params
    try:
        seconds = float(given.get("seconds") or DEFAULT_SECONDS)
        if not 0 < seconds <= MAX_SECONDS:
            raise ValueError
    except ValueError as error:
        raise UsageError(
            f"seconds is {given['seconds']!r}", remedy=f"choose more than 0 and at most {MAX_SECONDS:g}"
        ) from error
    debug = given.get("debug") or "0"
    if debug not in ("0", "1", "2"):
        raise UsageError(f"debug is {debug!r}", remedy="choose 0, 1 or 2")
    collect, force = _flag(given, "gc"), _flag(given, "force")
    worker = targets.worker(given.get("worker"))
    delta = bool(given.get("seconds"))
    return Query(worker, seconds, delta, collect, force, int(debug), may_start(request.scope), asker_of(request.scope))


def _flag(given: Any, name: str) -> bool:
    """The flag `name`: as in Go any number above zero is true."""
    text = given.get(name) or "0"
    if not text.isdecimal() or len(text) > _MAX_DIGITS:
        raise UsageError(f"{name} is {text!r}", remedy="choose 0 or 1")
    return int(text) > 0


async def _unless_they_leave(request: Request, work: Awaitable[T]) -> T | None:
    """The result of `work`; None, with `work` cancelled and its window closed, if the client disconnects first."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.create_task(until_left(request.receive))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait([working, leaving])
