"""Streams by ASGI alone, without the relay's own connections: the same bytes, bounded, ended when their client leaves."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

Served = Any  # the fixtures are typed in conftest.py
Start = Callable[..., Served]
Eventually = Callable[[Callable[[], bool]], None]

BYTES = "sim:events=40,size=3000,pace=0,seed=4"
ENDLESS = "sim:events=inf,pace=0,first=0,size=4000"
PLAIN = "streams are sent by ASGI's send"

# `relay serve` where uvicorn has changed inside. uvicorn does without the module, and so does the relay.
MOVED = """
import sys
sys.modules["uvicorn.protocols.http.httptools_impl"] = None
from relay.__main__ import main
sys.exit(main())
"""

# The relay's app under a server that is not its own.
UNDER = """
import asyncio, signal, socket
import hypercorn.asyncio, hypercorn.config
from relay.app import create_app
from relay.serving.process import prepare
from relay.serving.simulation import SimulatorProcess
from relay.settings import load

async def by_hypercorn(app, listener):
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    await hypercorn.asyncio.serve(app, config, shutdown_trigger=ended.wait)

settings = load()
prepare(settings)
listener = socket.create_server(("127.0.0.1", 0))
with SimulatorProcess() as simulator:
    relay = create_app(settings, simulator.url)
    print(f"relay http://127.0.0.1:{listener.getsockname()[1]}", f"upstream {simulator.url}", sep="\\n", flush=True)
    asyncio.run(by_hypercorn(relay.app, listener))
"""

PROGRAMS = {"moved": MOVED, "hypercorn": UNDER}


@pytest.fixture(params=sorted(PROGRAMS))
def plain(request: pytest.FixtureRequest, start: Start) -> Served:
    flags = ["--no-diagnostics"] if request.param == "moved" else []
    served = start(*flags, announced=2, program=PROGRAMS[request.param], RELAY_WRITE_TIMEOUT_SECONDS="1")
    # What has moved is named when the relay starts; that streams go another way, with the first of them.
    assert ("uvicorn.protocols.http.httptools_impl" in served.log()) == (request.param == "moved")
    assert PLAIN not in served.log()
    return served


def anonymous(body: bytes) -> bytes:
    """Without the id that each answer has of its own; the rest is the same bytes for the same model."""
    return re.sub(rb'"id":"[^"]*"', b"", body)


def test_streams_are_the_same_bytes_and_bounded_and_end_with_their_client(
    plain: Served, relay: Served, eventually: Eventually
) -> None:
    answers = [plain.chat(BYTES), plain.get("/stream?prompt=hi&model=" + BYTES)]
    assert [answer.events[-1] for answer in answers] == ["[DONE]", "[DONE]"]
    assert anonymous(answers[0].body) == anonymous(relay.chat(BYTES).body)
    assert answers[0].headers["content-type"] == "text/event-stream"
    eventually(lambda: len(plain.endings(outcome="completed")) == 2)

    # A client that reads nothing: its upstream waits, and when it has taken nothing for the write time-out, its stream ends.
    with plain.open(ENDLESS):
        eventually(lambda: bool(plain.endings(outcome="slow_client")))
        eventually(lambda: plain.stats()["open"] == 0)
    assert plain.stats()["bytes_sent"] < 32 * 1024 * 1024

    # One that leaves.
    with plain.open("sim:events=inf,pace=20,first=0") as connection:
        assert connection.recv(4096, socket.MSG_WAITALL)
        assert plain.stats()["open"] == 1
    eventually(lambda: bool(plain.endings(outcome="client_disconnected")))
    eventually(lambda: plain.stats()["open"] == 0)

    assert plain.log().count(PLAIN) == 1
    assert PLAIN not in relay.log(), "the relay's own connections need none of this"
    assert plain.terminate() == 0 or plain.process.returncode == -15
    assert "Traceback" not in plain.log()
    assert "never retrieved" not in plain.log()
