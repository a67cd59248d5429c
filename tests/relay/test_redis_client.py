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

from relay import redis_client
from relay.redis_client import FAILURES, Line, client, end, pack_bytes
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


async def _some_redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers the second word of each command; closes the connection after "last", and says nothing more after "silence"."""
    while line := await reader.readline():
        words = []
        for _ in range(int(line[1:])):
            size = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size + 2))[:-2])
        if words[1] == b"silence":
            await reader.read()
            break
        writer.write(b"-ERR refused\r\n" if words[1] == b"wrong" else b"$%d\r\n%b\r\n" % (len(words[1]), words[1]))
        if words[1] == b"last":
            break
    writer.close()


async def _on_a_line(*rounds: tuple[str, ...]) -> list[list[bytes] | str]:
    """What `ask` returns, or the name of the exception, for each round of commands."""
    said: list[list[bytes] | str] = []
    async with listening(_some_redis) as port:
        line = Line(f"redis://127.0.0.1:{port}", connect_seconds=5, answer_seconds=5)
        for words in rounds:
            try:
                said.append(await line.ask([("ECHO", word) for word in words]))
            except FAILURES as error:
                said.append(type(error).__name__)
            for _ in range(100):  # turns of the loop, in which the server, on the same loop, closes its connection
                await asyncio.sleep(0)
        await line.close()
    return said


def test_a_line_gives_all_answers_or_the_first_error_and_stays_usable() -> None:
    said = asyncio.run(_on_a_line(("a", "b"), ("c", "wrong", "d"), ("e",)))
    assert said == [[b"a", b"b"], "ResponseError", [b"e"]]


def test_a_line_to_a_redis_that_is_silent_fails_in_time_and_connects_again() -> None:
    assert asyncio.run(_on_a_line(("a",), ("b", "silence"), ("c",))) == [[b"a"], "TimeoutError", [b"c"]]


def test_a_line_that_redis_closed_while_nothing_was_asked_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_client, "IDLE_SECONDS", -1.0)
    assert asyncio.run(_on_a_line(("last",), ("a",), ("last",), ("b",))) == [[b"last"], [b"a"], [b"last"], [b"b"]]


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
