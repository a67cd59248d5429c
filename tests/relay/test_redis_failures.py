"""A connection that is closed while redis-py writes to it is an outage of Redis to every part of the relay, and no bug."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from relay.admission import redis_limits
from relay.hub import redis_log as hub
from relay.resume import redis_log as resume


async def _written_to_a_closed_connection(listener: socket.socket) -> BaseException:
    _, writer = await asyncio.open_connection(*listener.getsockname())
    writer.transport.abort()
    await asyncio.sleep(0)
    try:
        for _ in range(3):
            writer.writelines([b"PING"])
            await asyncio.sleep(0)
    except Exception as error:  # noqa: BLE001  # whatever it is, is what is asked for
        return error
    pytest.fail("nothing was raised")


@pytest.mark.parametrize("failures", [redis_limits.FAILURES, hub.FAILURES, resume.FAILURES])
def test_what_uvloop_says_of_a_closed_connection_is_a_failure(failures: tuple[type[BaseException], ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert isinstance(uvloop.run(_written_to_a_closed_connection(listener)), failures)
