"""A server of a test leaves nothing open, whenever the test ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket

import pytest

from tests.scripted import listening


@pytest.mark.parametrize("turns", range(6))
def test_a_connection_is_closed_wherever_its_handler_is(turns: int) -> None:
    async def handle(*_: object) -> None:
        await asyncio.Event().wait()

    async def scene(client: socket.socket) -> None:
        async with listening(handle) as port:
            client.connect(("127.0.0.1", port))
            for _ in range(turns):
                await asyncio.sleep(0)

    with socket.socket() as client:
        asyncio.run(scene(client))
        gc.collect()  # what is still open is a warning, and with it a failure of this test
        client.settimeout(60)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


def test_a_connection_that_had_to_wait_for_its_client_and_is_over_by_then_is_no_error() -> None:
    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 16_000_000)  # more than the kernel takes: it closes when the client has read the rest
        writer.close()
        await writer.wait_closed()

    async def scene() -> int:
        async with listening(handle) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            received = len(await reader.read())
            writer.close()
            await writer.wait_closed()
            return received

    assert asyncio.run(scene()) == 16_000_000
