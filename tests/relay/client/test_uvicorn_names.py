"""What of uvicorn's inside the relay uses, by name: pyproject.toml bounds its version for these; here is told what moved."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

PROTOCOL_METHODS = (
    "connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing", "on_message_begin",
    "on_headers_complete", "on_message_complete",
)  # fmt: skip
PROTOCOL_STATE = ("transport", "flow", "pipeline", "scope", "cycle", "connections")
CYCLE_PARAMETERS = ("scope", "transport", "flow", "message_event", "on_response")
CYCLE_STATE = ("response_started", "response_complete", "more_body", "message_event")
SERVER = ("startup", "shutdown", "on_tick", "handle_exit", "capture_signals")


@pytest.mark.parametrize("name", PROTOCOL_METHODS)
def test_the_protocol_is_called_by_these_names(name: str) -> None:
    assert callable(getattr(HttpToolsProtocol, name, None)), (
        f"uvicorn {uvicorn.__version__} has no HttpToolsProtocol.{name}"
    )


@pytest.mark.parametrize("name", PROTOCOL_STATE)
def test_a_connection_has_this_state(name: str) -> None:
    async def made() -> Any:
        config = uvicorn.Config(lambda: None, http="httptools", ws="none", lifespan="off")
        config.load()
        return HttpToolsProtocol(config, ServerState(), {})

    assert hasattr(asyncio.run(made()), name), f"uvicorn {uvicorn.__version__} has no HttpToolsProtocol().{name}"


@pytest.mark.parametrize("name", CYCLE_PARAMETERS)
def test_a_request_is_made_of_these(name: str) -> None:
    parameters = inspect.signature(RequestResponseCycle).parameters
    assert name in parameters, f"uvicorn {uvicorn.__version__} makes a RequestResponseCycle without {name}"


@pytest.mark.parametrize("name", CYCLE_STATE)
def test_a_request_has_this_state(name: str) -> None:
    async def made() -> Any:
        wanted = dict.fromkeys(inspect.signature(RequestResponseCycle).parameters)
        return RequestResponseCycle(**{**wanted, "scope": {"type": "http"}, "message_event": asyncio.Event()})

    assert hasattr(asyncio.run(made()), name), f"uvicorn {uvicorn.__version__} has no RequestResponseCycle().{name}"


@pytest.mark.parametrize("name", ["drain", "pause_reading", "resume_reading", "pause_writing", "resume_writing"])
def test_a_flow_is_controlled_by_these_names(name: str) -> None:
    assert callable(getattr(FlowControl, name, None)), f"uvicorn {uvicorn.__version__} has no FlowControl.{name}"


@pytest.mark.parametrize("name", ["read_paused", "write_paused"])
def test_a_flow_has_this_state(name: str) -> None:
    async def made() -> Any:
        return FlowControl(SimpleNamespace())  # type: ignore[arg-type]

    assert hasattr(asyncio.run(made()), name), f"uvicorn {uvicorn.__version__} has no FlowControl().{name}"


@pytest.mark.parametrize("name", SERVER)
def test_the_server_is_called_by_these_names(name: str) -> None:
    assert callable(getattr(uvicorn.Server, name, None)), f"uvicorn {uvicorn.__version__} has no Server.{name}"
