"""What of uvicorn's inside the monitor's edge uses, by name: pyproject.toml bounds its version for these."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import h11
import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

METHODS = ("connection_made", "connection_lost", "data_received", "resume_writing", "send_400_response")
STATE = ("transport", "conn", "cycle", "client", "connections")
SERVER = ("on_tick", "capture_signals")
H11_STATE = ("our_state", "their_state", "trailing_data")


async def no_app(scope: Any, receive: Any, send: Any) -> None:
    """An app that is never called."""


@pytest.mark.parametrize("name", METHODS)
def test_a_connection_has_this_method_of_its_own(name: str) -> None:
    assert name in vars(H11Protocol), f"uvicorn {uvicorn.__version__} has no H11Protocol.{name}"


@pytest.mark.parametrize("name", STATE)
def test_a_connection_has_this_state(name: str) -> None:
    config = uvicorn.Config(no_app, http="h11", ws="none", lifespan="off", log_config=None)
    made = H11Protocol(config, ServerState(), {}, SimpleNamespace())  # type: ignore[arg-type]
    assert hasattr(made, name), f"uvicorn {uvicorn.__version__} has no H11Protocol().{name}"


@pytest.mark.parametrize("name", SERVER)
def test_the_server_has_this_method_of_its_own(name: str) -> None:
    assert name in vars(uvicorn.Server), f"uvicorn {uvicorn.__version__} has no Server.{name}"


@pytest.mark.parametrize("name", H11_STATE)
def test_h11_tells_this_of_a_connection(name: str) -> None:
    assert hasattr(h11.Connection(h11.SERVER), name), f"h11 {h11.__version__} has no Connection().{name}"
