"""The relay's server: uvicorn on a socket that is bound already, with signal handling and a shutdown of its own.

uvicorn raises the signals that it caught again after its shutdown, so that a service stopped by SIGTERM exits with 143; and a
second SIGTERM changes nothing. Here the first SIGTERM or SIGINT drains (no new connections; open streams go on for
RELAY_DRAIN_SECONDS and are then ended) and the process exits with 0; a second one ends everything at once: each stream with its
last event, as long as drain.FAREWELL_SECONDS allow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn

from ..api.relay import Relay
from ..client.bounds import MAX_HEAD_BYTES, ClientTimeouts, ConnectionBounds

__all__ = ["RelayServer"]

# After the drain, until uvicorn cancels requests that are still running; there should be none. After a second signal, until
# all that the app has started has ended.
LAST_RESORT_SECONDS = 5
WATCH_TICKS = 10  # uvicorn ticks every 0.1 s
FORCED_TICK_SECONDS = 0.02  # after a second signal, between two looks whether all connections are gone

log = logging.getLogger("relay.serving")


def _bounded_protocol(high_water_bytes: int, bounds: ConnectionBounds) -> type[Any] | None:
    """The relay's own protocol class; None, with a warning, where the installed uvicorn lacks a name that it uses."""
    try:
        from ..client.connection import bounded_protocol

        return bounded_protocol(high_water_bytes, bounds)
    except ImportError as error:
        log.warning(
            "%s: clients' connections have uvicorn's own bounds for heads, bodies and idle time instead of the relay's; "
            "install the version that the extra `relay` asks for",
            error,
        )
        return None


class RelayServer(uvicorn.Server):
    """Serves one relay. `announce` is called once, when it accepts connections; `look_around` about every second after."""

    def __init__(self, relay: Relay, announce: Callable[[], None], look_around: Callable[[], None]) -> None:
        settings = relay.settings
        self._bounds = ConnectionBounds(
            ClientTimeouts(
                head=settings.head_timeout_seconds,
                body=settings.request_body_timeout_seconds,
                write=settings.write_timeout_seconds,
            ),
            most=settings.max_connections,
            budget=relay.request_budget,
            reject=relay.reject,
        )
        bounded = _bounded_protocol(settings.stream_budget.write_high_water_bytes, self._bounds)
        self._bounded = bounded is not None
        super().__init__(
            uvicorn.Config(
                relay.app,
                loop="uvloop",
                # The fallback is h11, the protocol of uvicorn's that bounds a request's head.
                http=bounded or "h11",
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                limit_concurrency=None if bounded else settings.max_connections or None,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,  # its lines have the URL, and that of GET /stream holds a prompt
                server_header=False,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=settings.trusted_proxies or None,
                timeout_keep_alive=settings.keep_alive_seconds,
                timeout_graceful_shutdown=math.ceil(settings.drain_seconds) + LAST_RESORT_SECONDS,
            )
        )
        self._relay = relay
        self._announce = announce
        self._look_around = look_around
        self.signals: list[int] = []
        self._forced = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._announce()

    async def on_tick(self, counter: int) -> bool:
        if counter % WATCH_TICKS == 0:
            self._look_around()
            self._bounds.end_overdue()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._relay.drain.begin()
        end = asyncio.create_task(self._end_of_drain(), name="relay.drain")
        try:
            await super().shutdown(sockets)
            # uvicorn waits for nothing after a second signal; the streams still tell their clients why they end.
            while self.force_exit and self.server_state.connections and not end.done():  # noqa: ASYNC110  # uvicorn's set tells nobody
                await asyncio.sleep(FORCED_TICK_SECONDS)
        finally:
            end.cancel()
            await asyncio.wait([end])
        if self.force_exit:
            # uvicorn leaves this out then: the last events of kept streams are copied, and the last telemetry is sent.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_RESORT_SECONDS):
                    await self.lifespan.shutdown()

    async def _end_of_drain(self) -> None:
        """Drain, then reset the connections that are left."""
        await self._relay.drain.run(self._forced)
        if self._bounded:
            for connection in list(self.server_state.connections):
                # Its client does not read: `close` would wait until the client has taken all bytes.
                connection.abort()  # type: ignore[union-attr]  # the relay's ClientConnection

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.signals.append(sig)
        if self.should_exit:
            self.force_exit = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._forced.set)
        self.should_exit = True
