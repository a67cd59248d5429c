"""An outage of Redis is told from a bug of ours; a task that talks to Redis ends, also where it has lost a cancellation."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Connection

from relay.redis_client import FAILURES, client, end, pack_bytes
from tests.scripted import listening

ABORT = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds: a close is a reset


async def _redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers what redis-py says of itself, and resets the connection at the first PING."""
    while line := await reader.readline():
        if b"SETINFO" in line:
            writer.write(b"+OK\r\n")
        if line.strip() == b"PING":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            break
    writer.close()


async def _written_to_a_closed_connection() -> None:
    """As a subscription does, which writes without waiting for an answer."""
    async with listening(_redis) as port:
        redis = client(f"redis://127.0.0.1:{port}", connections=1, connect_seconds=5, answer_seconds=5)
        async with redis, redis.pubsub() as pubsub:
            await pubsub.connect()
            assert pubsub.connection is not None
            for _ in range(200):
                await pubsub.connection.send_command("PING", check_health=False)
                await asyncio.sleep(0.01)


def test_what_uvloop_says_of_a_closed_connection_is_a_failure() -> None:
    with pytest.raises(FAILURES, match="closed") as told:
        uvloop.run(_written_to_a_closed_connection())
    assert isinstance(told.value.__cause__, RuntimeError)


def test_an_error_of_our_own_code_is_none() -> None:
    assert not issubclass(RuntimeError, FAILURES)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"])
def test_every_kind_of_connection_says_it(scheme: str) -> None:
    pool = client(f"{scheme}://localhost/1", connections=1, connect_seconds=1, answer_seconds=1).connection_pool
    assert pool.connection_class.send_packed_command.__module__ == "relay.redis_client"


@given(
    st.sampled_from(["GET", "SCRIPT LOAD", b"EVALSHA", b"CONFIG GET"]),
    st.lists(st.one_of(st.binary(max_size=2000), st.text(max_size=300), st.integers(), st.floats(allow_nan=False))),
)
def test_commands_are_packed_as_by_redis_py(name: str | bytes, arguments: list[bytes | str | int | float]) -> None:
    connection = Connection()
    assert pack_bytes((name, *arguments), connection.encoder.encode) == b"".join(
        connection.pack_command(name, *arguments)
    )


def test_a_task_that_has_lost_its_cancellation_is_ended() -> None:
    lost = []

    async def loses_the_first() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost.append(True)
                if len(lost) > 1:
                    raise

    async def run() -> bool:
        task = asyncio.create_task(loses_the_first())
        await asyncio.sleep(0)
        await asyncio.wait_for(end([task]), 60)
        return task.cancelled()

    assert asyncio.run(run())
    assert len(lost) == 2
