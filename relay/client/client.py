"""The client of a stream, as a stream sees it: chunks go to it at once, and it tells when it is slow, takes more, or is gone.

There are two: a connection of the relay's own server (connection.py), and one behind any other ASGI server, which is reached by
ASGI's `send` and `receive` alone (plain.py). Either is found in the scope of its request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol

__all__ = ["EXTENSION", "Client", "Listener", "came_whole", "client_of", "has_client", "until_left"]

# Where a request's scope has its client, among the extensions of ASGI.
EXTENSION: Final = "relay.client"


class Listener(Protocol):
    """Who is told what happens to a client while its response is under way. None of the three may raise."""

    def paused(self) -> None:
        """As much waits for the client as may: give it no more."""

    def resumed(self) -> None:
        """There is room again."""

    def lost(self) -> None:
        """The client is gone. Said once."""


class Client(Protocol):
    """A client whose response is under way."""

    def listen(self, listener: Listener | None) -> None:
        """Tell `listener` from now on, and at once that the client is gone if it is; None: nobody."""

    def writer(self, hold: Callable[[int], None]) -> Callable[[bytes], None]:
        """What gives one chunk of the body, which is not empty, to the client at once.

        hold   is told how many bytes more (or fewer: a negative number) wait inside of this process for the client to take
               them, where nothing else counts them
        """

    @property
    def full(self) -> bool:
        """Whether as much waits for the client as may."""

    async def room(self) -> None:
        """Wait until there is room, or the client is gone."""

    def unsent(self) -> int | None:
        """Bytes that the client has not taken, while something waits for it to take them; None where nothing does."""

    def abort(self) -> None:
        """Give the client up, with whatever was not sent."""

    async def gone(self, seconds: float) -> None:
        """Wait until the server has noticed that a client was given up, `seconds` at most."""


def has_client(scope: Any) -> bool:
    """Whether a client can be found in this scope."""
    return EXTENSION in (scope.get("extensions") or {})


def client_of(scope: Any) -> Client:
    """The client of the request that this is the scope of. Raises RuntimeError outside of `Outside` (outside.py)."""
    client: Client | None = (scope.get("extensions") or {}).get(EXTENSION)
    if client is None:
        raise RuntimeError("a stream is served by relay.client.outside.Outside, the outermost app: serve `Relay.app`")
    return client


def came_whole(scope: Any) -> bool:
    """Whether the body of the request can be received without waiting; False where that is not known."""
    connection = (scope.get("extensions") or {}).get(EXTENSION)
    return connection is not None and not connection.lost and connection.heard_whole


async def until_left(receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> None:
    """Returns when the client of a request is gone, or its response is over. `receive` is ASGI's; the body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass
