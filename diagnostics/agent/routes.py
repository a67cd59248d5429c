"""The label under which a request is counted: the route that the framework matched, never the path that the client sent.

A path may hold a user's name, a token or a random number; as a metric label each value would be a new time series. So a
label is a route template (`/users/{id}`), or "(unrouted)" for all requests that no router has matched.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from .loops.coroutines import coroutine_of
from .loops.frames import locals_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["UNROUTED", "frameworks_with_frames", "route_in_frames", "route_of"]

UNROUTED = "(unrouted)"
# Limit of middleware between the server and Quart: each is a coroutine that awaits the next.
_MAX_AWAITS = 32


def route_of(scope: Mapping[str, Any]) -> str | None:
    """The route template that FastAPI, Starlette or Litestar put into an ASGI scope; None where there is none (yet)."""
    route = scope.get("route")
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    if route is None:
        path = scope.get("path_template")  # Litestar's
    return f"{scope.get('root_path', '')}{path}" if path and isinstance(path, str) else None


def frameworks_with_frames() -> bool:
    """Whether a framework is loaded whose route is not in the scope, but in a frame of the serving task (Quart)."""
    return "quart.asgi" in sys.modules


def route_in_frames(task: Any) -> str | None:
    """Quart's rule for the request that `task` serves: the request object in the frame of its `ASGIHTTPConnection`."""
    coroutine: Any = coroutine_of(task) if hasattr(type(task), "get_coro") else None
    for _ in range(_MAX_AWAITS):
        frame = getattr(coroutine, "cr_frame", None)
        if frame is None:
            return None
        if frame.f_globals.get("__name__") == "quart.asgi":
            rule = getattr(getattr(locals_of(frame).get("request"), "url_rule", None), "rule", None)
            if rule:
                return str(rule)
        coroutine = coroutine.cr_await
    return None
