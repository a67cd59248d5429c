"""What a request is counted under: the route that the framework matched, never the path that the client wrote.

A path may hold a user's name, a token or a random number; as a metric label each value would be a new time series. So a
label is a route template (`/users/{id}`), or one word for everything that no router has matched.
"""

from __future__ import annotations

from collections.abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["UNROUTED", "route_of"]

UNROUTED = "(unrouted)"


def route_of(scope: Mapping[str, Any]) -> str | None:
    """The route template in an ASGI scope, as FastAPI and Starlette leave it there; None where there is none (yet)."""
    route = scope.get("route")
    if route is None:
        return None
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    return f"{scope.get('root_path', '')}{path}" if path else None
