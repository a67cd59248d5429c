"""Waits for a client to leave: whoever works for one request alone need not go on then."""

from __future__ import annotations

from starlette.types import Receive

__all__ = ["until_left"]


async def until_left(receive: Receive) -> None:
    """Returns when the client of a request is gone, or the response is over. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
