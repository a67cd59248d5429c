"""The private names of uvicorn that connection.py uses, and whether the installed uvicorn has them all."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

__all__ = ["MovedError", "check", "moved"]


class MovedError(ImportError):
    """The installed uvicorn lacks a name that connection.py uses."""


# Methods that it calls or overrides, and attributes of uvicorn's objects.
_METHODS: Final = {
    HttpToolsProtocol: (
        "connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing", "on_message_begin",
        "on_header", "on_headers_complete", "on_message_complete", "on_response_complete", "_unset_keepalive_if_required",
    ),
    FlowControl: ("drain", "pause_reading", "resume_reading", "pause_writing", "resume_writing"),
}  # fmt: skip
_STATE: Final = {
    HttpToolsProtocol: ("transport", "flow", "pipeline", "scope", "cycle", "connections", "parser", "headers"),
    FlowControl: ("read_paused", "write_paused"),
    RequestResponseCycle: ("response_complete", "more_body", "message_event", "disconnected"),
}


def check() -> None:
    """Raises MovedError where the installed uvicorn lacks a name."""
    missing = list(moved())
    if missing:
        raise MovedError(f"uvicorn {uvicorn.__version__} has no {', '.join(missing)}")


def moved() -> Iterator[str]:
    """The names that the installed uvicorn lacks."""
    for owner, names in _METHODS.items():
        # In the class itself: the methods that it inherits from asyncio's protocols do nothing.
        yield from (f"{owner.__name__}.{name}" for name in names if name not in vars(owner))
    for owner, names in _STATE.items():
        try:
            instance = _instance(owner)
        except (TypeError, AttributeError) as error:
            yield f"{owner.__name__}() ({error})"
        else:
            yield from (f"{owner.__name__}().{name}" for name in names if not hasattr(instance, name))


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    """An app that is never called."""


def _instance(owner: type[Any]) -> Any:
    """An instance to look at its attributes, made of empty arguments."""
    if owner is HttpToolsProtocol:
        config = uvicorn.Config(_no_app, ws="none", lifespan="off", log_config=None)
        return owner(config, ServerState(), {}, SimpleNamespace())
    return owner(*(None for _ in inspect.signature(owner).parameters))
