"""`diagnostics load` over connections that it keeps: counted where uvicorn accepts them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from diagnostics import cli

EVENTS = 5


async def app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]},
    )
    for number in range(EVENTS):
        await send({"type": "http.response.body", "body": b'data: {"n": %d}\n\n' % number, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


@contextmanager
def counting() -> Iterator[tuple[str, list[Any]]]:
    """uvicorn in a thread: the URL, and the connections that it has accepted."""
    accepted: list[Any] = []

    class Counted(HttpToolsProtocol):
        def connection_made(self, transport: Any) -> None:
            accepted.append(transport.get_extra_info("peername"))
            super().connection_made(transport)

    config = uvicorn.Config(app, port=0, http=Counted, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    sock = config.bind_socket()
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/", accepted
    finally:
        server.should_exit = True
        thread.join()
        sock.close()


@pytest.mark.parametrize(
    ("options", "connections"),
    [
        ((), 3),
        (("-p", "2"), 3),
        (("--disable-keepalive",), 30),
        # uvicorn closes where the request says so.
        (("--header", "Connection:close"), 30),
        # One that leaves closes its connection: each of the others, on its own, goes on.
        (("-c", "1", "--leave", "10%", "--after", "2"), 4),
        # One that reads slowly has a connection of its own.
        (("-c", "1", "--slow", "10%"), 4),
    ],
    ids=["kept", "two processes", "disabled", "the service closes", "some leave", "some are slow"],
)
def test_as_many_connections_as_clients_or_as_streams(
    options: tuple[str, ...], connections: int, tmp_path: Path
) -> None:
    numbers = tmp_path / "numbers.json"
    with counting() as (url, accepted):
        assert cli.main(["load", url, "-c", "3", "-n", "30", "--json", str(numbers), *options]) == 0
    found = json.loads(numbers.read_text(encoding="utf-8"))
    tally = found["tally"]
    assert tally["outcomes"].get("completed", 0) + tally["outcomes"].get("left", 0) == 30
    assert tally["errors"] == {}
    assert len(accepted) == tally["connections"]
    assert tally["connect"]["count"] == tally["connections"]
    assert tally["first_event"]["count"] == 30 - ("--slow" in options) * 3
    assert tally["connections"] == connections
