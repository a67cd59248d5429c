"""Waits for a client to disconnect, so that work for its request can be cancelled."""

from __future__ import annotations

from starlette.types import Receive

__all__ = ["until_left"]


async def until_left(receive: Receive) -> None:
    """Returns when a request's client has disconnected, or the response is complete. The body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
