"""The private names of uvicorn that the relay uses, and for which pyproject.toml bounds its version: names what has moved."""

from __future__ import annotations

from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from relay.client.bounds import ClientTimeouts, ConnectionBounds
from relay.client.connection import bounded_protocol
from relay.client.uvicorn_names import MovedError, moved
from relay.memory.requests import RequestBudget

SERVER = ("startup", "shutdown", "on_tick", "handle_exit", "capture_signals")


def test_this_uvicorn_has_all_that_a_connection_uses() -> None:
    assert list(moved()) == []


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (HttpToolsProtocol, "resume_writing"),
        (HttpToolsProtocol, "on_response_complete"),
        (FlowControl, "drain"),
    ],
)
def test_a_method_that_is_not_there_is_named(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(owner, name)
    assert list(moved()) == [f"{owner.__name__}.{name}"]
    bounds = ConnectionBounds(ClientTimeouts(1, 1, 1), most=0, budget=RequestBudget(1024), reject=lambda *_: None)
    with pytest.raises(MovedError, match=rf"uvicorn {uvicorn.__version__} has no {owner.__name__}\.{name}"):
        bounded_protocol(1024, bounds)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(HttpToolsProtocol, "pipeline"), (RequestResponseCycle, "message_event"), (FlowControl, "write_paused")],
)
def test_an_attribute_that_is_not_there_is_named(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(self: Any, *arguments: Any, **options: Any) -> None:
        before(self, *arguments, **options)
        delattr(self, name)

    before = owner.__init__
    made.__wrapped__ = before  # type: ignore[attr-defined]  # for its signature
    monkeypatch.setattr(owner, "__init__", made)
    assert list(moved()) == [f"{owner.__name__}().{name}"]


def test_an_object_that_is_made_otherwise_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(self: Any, config: Any) -> None: ...

    monkeypatch.setattr(HttpToolsProtocol, "__init__", made)
    (told,) = moved()
    assert told.startswith("HttpToolsProtocol() (")


@pytest.mark.parametrize("name", SERVER)
def test_the_server_is_called_by_these_names(name: str) -> None:
    assert callable(getattr(uvicorn.Server, name, None)), f"uvicorn {uvicorn.__version__} has no Server.{name}"
