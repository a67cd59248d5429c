"""The result of one pass over the servers' connections (a look), and its sums, made once for all its readers.

Thousands of requests are scattered in memory: visiting them costs more than adding their numbers. So every sum is made
from lists that were collected during the pass.
"""

from __future__ import annotations

import heapq
import weakref
from operator import attrgetter

from ..reading_cache import rest_if_due, sliced
from ..routes import UNROUTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ..ledger import StreamLedger
    from ..record import StreamRecord

__all__ = ["OpenRequest", "RouteSum", "ServerLook"]

_STARTED, _TASK, _FD = attrgetter("started"), attrgetter("task"), attrgetter("fd")
_TRANSPORT_BYTES = attrgetter("transport_bytes")


class OpenRequest:
    """A request whose response has not ended; kept from the first look that found it for as long as it is open.

    thing            weak reference to the server's own object for it
    method_and_path  function: that object -> method and raw path
    since            monotonic seconds: when the request began, where the server keeps that; else when a look first found it
    since_begun      whether `since` is when the request began
    started          whether the response's head was sent: a begun, open response is a stream. None: unknown, then every open
                     request counts as a stream
    task             id() of the asyncio task that serves it, 0 until it is known
    serving          weak reference to that task, for servers whose requests are found by task
    kind             that server, None for uvicorn
    sought           whether its route has been searched for in the task's frames
    record           the ledger's record with the same task, once it is found
    fd               its connection's file descriptor, None: unknown
    transport_bytes  bytes in the transport's write buffer at the last look, None: unknown
    """

    __slots__ = (
        "fd", "kind", "method_and_path", "record", "route", "serving", "since", "since_begun", "sought", "started", "task",
        "thing", "transport_bytes",
    )  # fmt: skip

    def __init__(self, thing: Any, since: float, method_and_path: Callable[[Any], tuple[Any, Any]]) -> None:
        self.thing = weakref.ref(thing)
        self.method_and_path = method_and_path
        self.since = since
        self.since_begun = False
        self.started: bool | None = False
        self.task = 0
        self.serving: weakref.ref[Any] | None = None
        self.kind: Any = None
        self.sought = False
        self.record: StreamRecord | None = None
        self.fd: int | None = None
        self.route = UNROUTED
        self.transport_bytes: int | None = 0

    def to_json(self, now: float) -> dict[str, Any]:
        """The row of a list of streams. The path is without its query; segments that look like data are `*`."""
        from ..redaction import shown_path  # with the first connection: an idle agent does without it

        thing = self.thing()
        method, path = self.method_and_path(thing) if thing is not None else (None, None)
        return {
            "route": self.route,
            "path": shown_path(path),
            "method": method,
            "age_seconds": max(0.0, now - self.since),
            "age_counts_from": "the request" if self.since_begun else "first seen by the agent",
            "response_started": self.started,
            "transport_bytes": self.transport_bytes,
            "fd": self.fd,
            "task": self.task or None,
        }


class RouteSum:
    """One route's requests: open streams, bytes in all their write buffers (None: unknown of some), their descriptors."""

    __slots__ = ("fds", "open", "transport_bytes")

    def __init__(self, requests: list[OpenRequest]) -> None:
        self.open = 0
        self.transport_bytes: int | None = 0
        self.fds: list[int] = []
        for part in sliced(requests):
            try:
                self.open += sum(map(_STARTED, part))
            except TypeError:  # `started` of some is None
                self.open += sum(request.started is not False for request in part)
            if self.transport_bytes is not None:
                try:
                    self.transport_bytes += sum(map(_TRANSPORT_BYTES, part))
                except TypeError:
                    self.transport_bytes = None
            self.fds += [fd for fd in map(_FD, part) if fd is not None]


class ServerLook:
    """The result of one pass over all servers. After `close` nothing is added.

    servers      the kinds of server that were found
    unknown      a sentence for each server that runs and could not be read
    missing      the last private attribute that was not found
    connections  number of open ones, None where a server does not report it
    """

    def __init__(self, now: float) -> None:
        self.now = now
        self.servers: list[str] = []
        self.unknown: list[str] = []
        self.missing = ""
        self.connections: int | None = 0
        self.requests: list[OpenRequest] = []
        self.unread: dict[str, int] = {}
        self.routes: dict[str, RouteSum] = {}
        self.by_task: dict[int, OpenRequest] = {}
        self._sizes: list[int] = []

    def could_not(self, what: str) -> None:
        self.unread[what] = self.unread.get(what, 0) + 1

    def give_up(self, server: str, reason: str, before: int = 0) -> None:
        """Report this server's streams as unknown; all requests but the first `before` are removed again."""
        del self.requests[before:]
        if server in self.servers:
            self.servers.remove(server)
        self.unknown.append(reason)

    def close(self, ledgers: Iterable[StreamLedger] = ()) -> None:
        """Give each request the route of its ledger record, and add up the sums.

        Requests and records are joined by the serving task, not by address and port: a proxy's headers may change those.
        """
        by_route: dict[str, list[OpenRequest]] = {}
        rest_if_due()
        joined = self._joined(list(ledgers))
        rest_if_due()
        for part in sliced(joined):
            for request in part:
                try:
                    by_route[request.route].append(request)
                except KeyError:
                    by_route[request.route] = [request]
        rest_if_due()
        self.routes = {route: RouteSum(requests) for route, requests in by_route.items()}
        rest_if_due()
        for part in sliced(self.requests):
            self.by_task.update(zip(map(_TASK, part), part, strict=True))
            self._sizes += [size or 0 for size in map(_TRANSPORT_BYTES, part)]

    @property
    def open(self) -> int:
        """The number of open streams of all routes."""
        return sum(sums.open for sums in self.routes.values())

    @property
    def transport_bytes(self) -> int | None:
        """Bytes in the write buffers of all open requests, None where a server does not report them."""
        sizes = [sums.transport_bytes for sums in self.routes.values()]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def fullest(self, top: int) -> list[dict[str, Any]]:
        """The rows of the `top` requests with the most bytes in their transports."""
        sizes = self._sizes
        # Mostly all buffers are empty: then the first ones will do.
        empty = not any(sizes)
        places = list(range(min(top, len(sizes)))) if empty else []
        for part in sliced([] if empty else list(range(len(sizes)))):
            places = heapq.nlargest(top, [*places, *part], key=sizes.__getitem__)
        rows = []
        for place in places:
            rest_if_due()
            rows.append(self.requests[place].to_json(self.now))
        return rows

    def _joined(self, ledgers: list[StreamLedger]) -> list[OpenRequest]:
        if not ledgers:
            return self.requests
        alone: list[OpenRequest] = []
        for part in sliced(self.requests):
            for request in part:
                record = request.record
                if record is None or record.closed_at is not None:
                    alone.append(request)
                else:
                    request.route = record.route
        if alone:
            known: set[StreamRecord | None] = set()
            for part in sliced(self.requests):
                known.update(request.record for request in part)
            serving: dict[int, StreamRecord] = {}
            for ledger in ledgers:
                serving.update(ledger.by_task(known))
            for request in alone:
                request.record = record = serving.get(request.task)
                if record is not None:
                    request.route = record.route
                elif request.started is False:
                    request.route = UNROUTED
        return self.requests
