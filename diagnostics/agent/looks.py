"""What one look at the servers' connections found, and its sums, which are made once for all who share the look.

Of thousands of requests each lies somewhere else in memory: to visit them costs more than to add their numbers. So
whatever is asked of a look is answered from what was collected while the look was made.
"""

from __future__ import annotations

import heapq
import weakref
from operator import attrgetter

from .routes import UNROUTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .ledger import StreamLedger
    from .record import StreamRecord

__all__ = ["Look", "OpenRequest", "RouteSum"]

_STARTED, _TASK, _FD = attrgetter("started"), attrgetter("task"), attrgetter("fd")
_TRANSPORT_BYTES = attrgetter("transport_bytes")


class OpenRequest:
    """A request whose response has not ended, as first seen by this agent; remembered for as long as it is open.

    cycle            weak reference to the server's own object
    since            monotonic seconds of the first look that saw it: it may be older
    started          whether the response's head was sent: an open response is what is called a stream here
    task             id() of the asyncio task that serves it, 0 until it is known
    record           the ledger's record of the stream, once both are known to have the same task
    fd               its connection's file descriptor, None where the transport does not tell
    transport_bytes  in the transport's write buffer at the last look
    """

    __slots__ = ("cycle", "fd", "record", "route", "since", "started", "task", "transport_bytes")

    def __init__(self, cycle: Any, since: float) -> None:
        self.cycle = weakref.ref(cycle)
        self.since = since
        self.started = False
        self.task = 0
        self.record: StreamRecord | None = None
        self.fd: int | None = None
        self.route = UNROUTED
        self.transport_bytes = 0

    def to_json(self, now: float) -> dict[str, Any]:
        """The row of a streams list. The path is the raw one, without its query."""
        scope = getattr(self.cycle(), "scope", None) or {}
        return {
            "route": self.route,
            "path": scope.get("path"),
            "method": scope.get("method"),
            "age_seconds": now - self.since,
            "age_counts_from": "first seen by the agent",
            "response_started": self.started,
            "transport_bytes": self.transport_bytes,
            "fd": self.fd,
            "task": self.task or None,
        }


class RouteSum:
    """One route's requests: streams open, bytes in the write buffers of all, and their descriptors."""

    __slots__ = ("fds", "open", "transport_bytes")

    def __init__(self, requests: list[OpenRequest]) -> None:
        self.open: int = sum(map(_STARTED, requests))
        self.transport_bytes: int = sum(map(_TRANSPORT_BYTES, requests))
        self.fds: list[int] = [fd for fd in map(_FD, requests) if fd is not None]


class Look:
    """What one look found. After `close` nothing is added."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.connections = 0
        self.requests: list[OpenRequest] = []
        self.taskless: dict[int, OpenRequest] = {}
        self.unread: dict[str, int] = {}
        self.routes: dict[str, RouteSum] = {}
        self.by_task: dict[int, OpenRequest] = {}
        self._held: list[int] = []

    def could_not(self, what: str) -> None:
        self.unread[what] = self.unread.get(what, 0) + 1

    def close(self, ledgers: Iterable[StreamLedger] = ()) -> None:
        """Charge the requests to the routes that the ledgers know them by, and add them up.

        The join is the serving task; address and port will not do, since behind a proxy the scope has the forwarded ones.
        """
        by_route: dict[str, list[OpenRequest]] = {}
        for request in self._joined(list(ledgers)):
            try:
                by_route[request.route].append(request)
            except KeyError:
                by_route[request.route] = [request]
        self.routes = {route: RouteSum(requests) for route, requests in by_route.items()}
        self.by_task = dict(zip(map(_TASK, self.requests), self.requests, strict=True))
        self._held = list(map(_TRANSPORT_BYTES, self.requests))

    def fullest(self, top: int) -> list[dict[str, Any]]:
        """The rows of the `top` requests with the most bytes in their transports."""
        held = self._held
        # Where nothing is held, as mostly, the first are as full as any.
        places = (
            heapq.nlargest(top, range(len(held)), key=held.__getitem__) if any(held) else range(min(top, len(held)))
        )
        return [self.requests[place].to_json(self.now) for place in places]

    def _joined(self, ledgers: list[StreamLedger]) -> list[OpenRequest]:
        if not ledgers:
            return self.requests
        alone: list[OpenRequest] = []
        for request in self.requests:
            record = request.record
            if record is None or record.closed_at is not None:
                alone.append(request)
            else:
                request.route = record._totals.name
        if alone:
            known = {request.record for request in self.requests}
            serving: dict[int, StreamRecord] = {}
            for ledger in ledgers:
                serving.update(ledger.by_task(known))
            for request in alone:
                request.record = record = serving.get(request.task)
                if record is not None:
                    request.route = record._totals.name
                elif not request.started:
                    request.route = UNROUTED
        return self.requests
