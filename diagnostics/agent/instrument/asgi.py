"""The ledger for any ASGI app: one record for each response that streams, counted without the app's help.

    from diagnostics import instrument

    app = FastAPI()
    ledger = instrument(app, monitor=True)        # FastAPI, Starlette: the middleware is added in place

    app = instrument(raw_asgi_app)                # any other ASGI app: the ledger is returned, which is also the wrapped app

The middleware counts bytes and events that go out, times how long `send` waits for the client, and sees the client leave.
Bytes that the app itself buffers (in a queue) a handler must report: `with ledger.stream("/chat") as stream: stream.hold(n)`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from ...errors import DiagnosticsError
from .. import lifecycle
from ..ledger import StreamLedger, current_record
from ..record import StreamRecord, outcome_of
from ..routes import UNROUTED, route_of
from .monitor_process import DEFAULT_LISTEN, MonitorProcess, start_monitor

__all__ = ["InstrumentedApp", "LedgerMiddleware", "instrument"]

log = logging.getLogger("diagnostics.agent")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Content types of responses that are streams. Any other response is not counted.
STREAM_TYPES = (b"text/event-stream", b"application/x-ndjson", b"application/jsonl", b"application/stream+json")
# ASGI messages that end a response unless they have `more_body`.
LAST_TYPES = ("http.response.body", "http.response.pathsend")
COLON = ord(":")


class InstrumentedApp(StreamLedger):
    """A ledger that is also the wrapped app, so that one statement instruments and one name is served."""

    def __init__(self) -> None:
        super().__init__()
        self.app: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.app is None:
            raise RuntimeError("this ledger wraps no app: serve the app that was given to instrument()")
        await self.app(scope, receive, send)


def instrument(
    app: Any,
    *,
    monitor: bool | MonitorProcess = False,
    listen: str = DEFAULT_LISTEN,
    routes: Iterable[str] = (),
) -> InstrumentedApp:
    """Keep a ledger of `app`'s streams and run the agent for as long as `app` is served.

    app      a FastAPI or Starlette app, which gets the middleware, or any ASGI app, which is wrapped
    monitor  True: start a monitor process beside the service, at `listen`; or a monitor that `start_monitor` returned
    routes   paths to count separately for an app without a router; other paths are counted as "(unrouted)", since a path
             may hold any text and a metric label may not

    Returns a ledger that can be called as the app.
    """
    instrumented = InstrumentedApp()
    options: dict[str, Any] = {"ledger": instrumented, "monitor": monitor, "listen": listen, "routes": routes}
    add_middleware = getattr(app, "add_middleware", None)
    if add_middleware is not None:
        add_middleware(LedgerMiddleware, **options)
        instrumented.app = app
    else:
        instrumented.app = LedgerMiddleware(app, **options)
    return instrumented


class LedgerMiddleware:
    """Pure ASGI middleware; keeps no state of a request on itself."""

    def __init__(
        self,
        app: App,
        ledger: StreamLedger,
        monitor: bool | MonitorProcess = False,
        listen: str = DEFAULT_LISTEN,
        routes: Iterable[str] = (),
    ) -> None:
        self.app = app
        self.ledger = ledger
        self.routes = frozenset(routes)
        self._agent = _AgentOfApp(ledger, monitor, listen)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._agent.start()
            await self._count(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._agent.start()
        try:
            await self.app(scope, receive, send)
        finally:
            self._agent.stop()

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        ledger = self.ledger
        record = ledger.prepare()
        token = current_record.set(record)
        meter = _Meter(record)

        async def counted_receive() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and not meter.finished:
                record.disconnected()
            return message

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start" and _streams(message):
                if not record.claimed:
                    ledger.move(record, self._route(scope))
                    ledger.enter(record)
                meter.counts = True
            if message["type"] in LAST_TYPES and not message.get("more_body", False):
                # Set before the send: during it the server may begin the connection's next request.
                record.answered = True
            if not meter.counts or message["type"] != "http.response.body":
                await send(message)
                return
            record.waits()
            try:
                await send(message)
            finally:
                record.goes_on()
            meter.sent(message)

        try:
            await self.app(scope, counted_receive, counted_send)
        except BaseException as error:
            if not record.outlives_request:
                record.ends(outcome_of(record, type(error)))
            raise
        finally:
            current_record.reset(token)
            client_left = record.disconnected_at is not None and not meter.finished
            record.request_ends("client_disconnected" if client_left else "completed")

    def _route(self, scope: Scope) -> str:
        route = route_of(scope)
        if route is not None:
            return route
        path = scope.get("path", "")
        return path if path in self.routes else UNROUTED


class _Meter:
    """Counts bytes and events of one response's body; an empty line ends an event."""

    __slots__ = ("counts", "ended_in_newline", "finished", "record")

    def __init__(self, record: StreamRecord) -> None:
        self.record = record
        self.counts = False
        self.finished = False
        self.ended_in_newline = False

    def sent(self, message: Message) -> None:
        body = message.get("body", b"")
        if not message.get("more_body", False):
            # The server discards what is sent after a disconnect: such a response has not finished.
            self.finished = self.record.disconnected_at is None
        if not body:
            return
        events = body.count(b"\n\n") or body.count(b"\r\n\r\n")
        if self.ended_in_newline and body[0] == 10:
            events += 1
        self.ended_in_newline = body[-1] == 10 and body[-2:] != b"\n\n"
        if body[0] == COLON and len(body.splitlines()) == 2:
            events = 0  # a heartbeat (a comment line) is no event, and the gap before it is not the service's latency
        self.record.sent(len(body), events)


def _streams(start: Message) -> bool:
    for name, value in start.get("headers", ()):
        if name.lower() == b"content-type":
            return value.split(b";", 1)[0].strip().lower() in STREAM_TYPES
    return False


class _AgentOfApp:
    """Starts and stops the agent (and the monitor, where configured) of one app; a failure never keeps the app from serving."""

    def __init__(self, ledger: StreamLedger, monitor: bool | MonitorProcess, listen: str) -> None:
        self._ledger = ledger
        self._monitor = monitor
        self._listen = listen
        self._own_monitor: MonitorProcess | None = None
        self._tried_in = 0
        self._started = False

    def start(self) -> None:
        if self._tried_in == os.getpid():
            return
        # In a child forked off a serving process: the agent and monitor that these fields name are the parent's.
        self._tried_in, self._started, self._own_monitor = os.getpid(), False, None
        try:
            handle = self._monitor if isinstance(self._monitor, MonitorProcess) else None
            if self._monitor is True:
                handle = self._own_monitor = start_monitor(
                    self._listen, unless_running=True, option="instrument(app, listen='HOST:PORT')"
                )
            lifecycle.start(handle.directory if handle else None, self._ledger)
            self._started = True
        except (DiagnosticsError, OSError) as error:
            log.error("the service runs without diagnostics: %s", error)

    def stop(self) -> None:
        self._tried_in = 0
        if self._started:
            self._started = False
            lifecycle.stop(self._ledger)
        if self._own_monitor is not None:
            self._own_monitor.stop()
            self._own_monitor = None
