"""The bytes that wait for a subscriber that does not read, added up over every layer, stay within a stream's budget."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
import uvloop

from relay.app import create_app
from relay.memory.budget import MIN_BUDGET_BYTES, StreamBudget
from relay.memory.buffer import POLICIES
from relay.protocol.sse import encode
from relay.serving.listener import bind
from relay.serving.server import RelayServer
from relay.settings import load


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("budget", "size"),
    [(MIN_BUDGET_BYTES, 20), (MIN_BUDGET_BYTES, 30_000), (256 * 1024, 8000), (256 * 1024, 30_000)],
)
def test_no_subscriber_holds_more_than_its_budget(policy: str, size: int, budget: int) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        held = runner.run(_held(policy, size, budget))
    assert max(held) <= budget, (max(held), budget)
    assert max(held) > budget / 5  # were nothing measured, nothing would be bounded


async def _held(policy: str, size: int, budget: int) -> list[int]:
    settings = load(
        stream_budget_bytes=budget,
        subscriber_bytes=StreamBudget(budget).subscriber_bytes,
        subscriber_policy=policy,
        drain_seconds=0,
    )
    relay = create_app(settings, "http://127.0.0.1:9/v1")
    serving = asyncio.Event()
    server = RelayServer(relay, serving.set, lambda: None)
    samples = []
    with bind("127.0.0.1", 0, StreamBudget(budget).send_buffer_bytes) as listener, socket.socket() as connection:
        task = asyncio.create_task(server.serve([listener]))
        await serving.wait()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(listener.getsockname())
        connection.sendall(b"GET /v1/topics/t HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(60):
            while not relay.hub.topics.subscribers:
                await asyncio.sleep(0.01)
        ports = connection.getpeername()[1], connection.getsockname()[1]
        published = 0
        while published < 3 * budget:
            for _ in range(max(1, 20_000 // size)):
                await relay.hub.publish("t", encode(b"x" * size))
                published += size
            await asyncio.sleep(0.001)
            app = sum(record.buffered_bytes for record in relay.ledger.records.values())
            transport = sum(each.transport.get_write_buffer_size() for each in server.server_state.connections)
            samples.append(app + transport + _unacknowledged(*ports))
        server.should_exit = True
        connection.close()
        await task
    assert not relay.ledger.records
    return samples


def _unacknowledged(port: int, client_port: int) -> int:
    """What the kernel holds for the client, on the relay's side of the connection."""
    for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]:
        fields = line.split()
        if tuple(int(fields[column].split(":")[1], 16) for column in (1, 2)) == (port, client_port):
            return int(fields[4].split(":")[0], 16)
    return 0
