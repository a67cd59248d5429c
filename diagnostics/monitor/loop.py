"""The event loop of a monitor, whose work never waits for a resolver.

asyncio looks names up in the threads that `asyncio.to_thread` uses for everything else, six of them on two cores, and waits for
them before it ends. A monitor may have many names to look up: a fleet's, webhooks', receivers'. While a resolver is silent, as
in an outage, six of them would stop its verdicts, its readings and its own end. Here each name is looked up in a thread of its
own, and for a name that is being looked up nobody begins another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

__all__ = ["MonitorLoop", "run_monitor"]

Result = TypeVar("Result")
# As of socket.getaddrinfo.
Addresses = list[tuple[Any, ...]]
# Lookups at a time; above it they fail, as with a resolver that has too much to do.
MOST_LOOKUPS: Final = 64


class MonitorLoop(asyncio.SelectorEventLoop):
    """asyncio's loop with lookups of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._lookups: dict[tuple[Any, ...], asyncio.Future[Addresses | Exception]] = {}

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002  # asyncio's name for it
        proto: int = 0,
        flags: int = 0,
    ) -> Addresses:
        """As socket.getaddrinfo. Raises OSError, mostly socket.gaierror."""
        asked = (host, port, family, type, proto, flags)
        found = self._lookups.get(asked)
        if found is None:
            if len(self._lookups) >= MOST_LOOKUPS:
                raise socket.gaierror(socket.EAI_AGAIN, f"{MOST_LOOKUPS} names are being looked up already")
            found = self._lookups[asked] = self.create_future()
            # A daemon: the monitor may end while the resolver is waited for.
            thread = threading.Thread(target=self._look_up, args=(asked, found), name="monitor-lookup", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the process may have no more threads
                self._looked_up(asked, found, OSError(errno.EAGAIN, str(error)))
        result = await asyncio.shield(found)
        if isinstance(result, Exception):
            # One of its own for each who waits: an error collects the frames of all that raise it.
            raise result.__class__(*result.args)
        return result

    def _look_up(self, asked: tuple[Any, ...], found: asyncio.Future[Addresses | Exception]) -> None:
        """In a thread."""
        result: Addresses | Exception
        try:
            result = socket.getaddrinfo(*asked)
        except (OSError, UnicodeError) as error:
            result = error.with_traceback(None)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self.call_soon_threadsafe(self._looked_up, asked, found, result)

    def _looked_up(
        self, asked: tuple[Any, ...], found: asyncio.Future[Addresses | Exception], result: Addresses | Exception
    ) -> None:
        self._lookups.pop(asked, None)
        if not found.done():
            found.set_result(result)


def run_monitor(work: Coroutine[Any, Any, Result]) -> Result:
    """As `asyncio.run`, on such a loop."""
    with asyncio.Runner(loop_factory=MonitorLoop) as runner:
        return runner.run(work)
