"""The client of a stream: an interface to write chunks without an await, and callbacks for full, writable again and lost.

It has two implementations: a connection of the relay's own server (connection.py), and a client behind any other ASGI server,
which is reached by ASGI's `send` and `receive` alone (plain.py). Both are found in the request's ASGI scope.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol

__all__ = ["EXTENSION", "Client", "Listener", "client_of", "has_client", "until_left", "whole_body_arrived"]

# The key of the client among the `extensions` of a request's ASGI scope.
EXTENSION: Final = "relay.client"


class Listener(Protocol):
    """Callbacks of a client while its response is under way. None of the three may raise."""

    def paused(self) -> None:
        """The write buffer is above its high-water mark: write no more."""

    def resumed(self) -> None:
        """The write buffer is below its low-water mark again."""

    def lost(self) -> None:
        """The client is gone. Called once."""


class Client(Protocol):
    """A client whose response is under way."""

    def listen(self, listener: Listener | None) -> None:
        """Call this listener from now on (None: no one). Where the client is gone already, calls `lost` at once."""

    def writer(self, hold: Callable[[int], None]) -> Callable[[bytes], None]:
        """Returns a function that writes one chunk of the body, which must not be empty, without waiting.

        hold   called with the change in the number of bytes (negative: fewer) that wait in this process for the client and
               are not in the transport's write buffer, whose bytes are counted elsewhere
        """

    @property
    def full(self) -> bool:
        """Whether the write buffer is above its high-water mark."""

    async def room(self) -> None:
        """Wait until there is room, or the client is gone."""

    def unsent(self) -> int | None:
        """Bytes that the client has not acknowledged, as far as they are known; None where no bytes wait in this process."""

    def abort(self) -> None:
        """Drop the client, with all bytes that were not sent."""

    async def gone(self) -> None:
        """After `abort`: wait until the server has seen the connection lost, for a second at most."""


def has_client(scope: Any) -> bool:
    """Whether `client_of` finds a client in this ASGI scope."""
    return EXTENSION in (scope.get("extensions") or {})


def client_of(scope: Any) -> Client:
    """The client in a request's ASGI scope. Raises RuntimeError where the app does not run under `Outside` (outside.py)."""
    client: Client | None = (scope.get("extensions") or {}).get(EXTENSION)
    if client is None:
        raise RuntimeError("a stream is served by relay.client.outside.Outside, the outermost app: serve `Relay.app`")
    return client


def whole_body_arrived(scope: Any) -> bool:
    """Whether the request's whole body has arrived, so that `receive` returns at once; False where that is unknown."""
    connection = (scope.get("extensions") or {}).get(EXTENSION)
    return connection is not None and not connection.lost and connection.whole_body_arrived


async def until_left(receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> None:
    """Wait for ASGI's `http.disconnect`: the client is gone, or the response complete. To be called after reading the body."""
    while (await receive())["type"] != "http.disconnect":
        pass
