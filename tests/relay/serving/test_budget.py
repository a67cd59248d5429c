"""A stream's bytes, added up over every layer that can hold them, never exceed its budget: measured, in the relay's process.

The relay runs in this process, so that every layer can be read at the same moment: the ledger (the pump's chunk and the
parser), the transport, and both sockets' queues as the kernel counts them in /proc/net/tcp.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from relay.app import Relay, create_app
from relay.memory.budget import MIN_BUDGET_BYTES, StreamBudget
from relay.serving.listener import bind
from relay.serving.server import RelayServer
from relay.serving.simulation import SimulatorProcess
from relay.settings import load

Client = Callable[[socket.socket], Awaitable[None]]


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with SimulatorProcess() as simulator:
        yield simulator.url


@pytest.mark.parametrize("total", [MIN_BUDGET_BYTES, 256 * 1024, 1024 * 1024, 16 * 1024 * 1024])
def test_the_shares_add_up_to_less_than_the_budget(total: int) -> None:
    assert StreamBudget(total).worst_case_bytes <= total


async def reads_nothing(connection: socket.socket) -> None:
    pass


async def reads_a_little(connection: socket.socket) -> None:
    await asyncio.get_running_loop().sock_recv(connection, 2000)


@pytest.mark.parametrize("client", [reads_nothing, reads_a_little])
@pytest.mark.parametrize("size", [20, 60_000])
@pytest.mark.parametrize(
    ("budget", "ahead"),
    [
        pytest.param(MIN_BUDGET_BYTES, 0, id="the least"),
        pytest.param(256 * 1024, 0, id="the default"),
        pytest.param(512 * 1024, StreamBudget(512 * 1024).spare_bytes, id="reading ahead"),
    ],
)
def test_no_stream_holds_more_than_its_budget(
    upstream: str, client: Client, size: int, budget: int, ahead: int
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        held = runner.run(_held(upstream, f"sim:events=inf,pace=0,first=0,size={size}", client, budget, ahead))
    assert max(held) <= budget, (max(held), budget)
    # A client that does not read fills what it may: were nothing measured, nothing would be bounded.
    assert max(held) > max(budget / 4, ahead)


async def _held(upstream: str, model: str, client: Client, budget: int, ahead: int) -> list[int]:
    settings = load(upstream_base_url=upstream, stream_budget_bytes=budget, read_ahead_bytes=ahead, drain_seconds=0)
    relay = create_app(settings, upstream)
    serving = asyncio.Event()
    server = RelayServer(relay, serving.set, lambda: None)
    listener = bind("127.0.0.1", 0, StreamBudget(budget).send_buffer_bytes)
    with listener, socket.socket() as connection:
        task = asyncio.create_task(server.serve([listener]))
        await serving.wait()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(listener.getsockname())
        body = json.dumps({"model": model, "messages": [], "stream": True}).encode()
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        connection.sendall(body)
        connection.setblocking(False)
        samples = await _sample(relay, server, client, connection, int(upstream.split(":")[2].split("/")[0]))
        server.should_exit = True
        connection.close()
        await task
    return samples


async def _sample(
    relay: Relay, server: RelayServer, client: Client, connection: socket.socket, upstream_port: int
) -> list[int]:
    samples: list[int] = []
    port, own = connection.getpeername()[1], connection.getsockname()[1]
    until = time.monotonic() + 60
    full_since = None
    while time.monotonic() < until:
        await client(connection) if relay.ledger.records else None
        await asyncio.sleep(0.01)
        for stream in relay.open_streams.all():
            stream.look_after(time.monotonic())
        app = sum(record.buffered_bytes for record in relay.ledger.records.values())
        transport = sum(each.transport.get_write_buffer_size() for each in server.server_state.connections)
        samples.append(app + transport + _kernel(port, own, upstream_port))
        # The pump stands still: a second more of it is enough.
        if full_since is None and any(record.state == "blocked" for record in relay.ledger.records.values()):
            full_since = time.monotonic()
        if full_since is not None and time.monotonic() - full_since > 0.8:
            return samples
    raise AssertionError("the client was never waited for")


def _kernel(port: int, client_port: int, upstream_port: int) -> int:
    """What the kernel holds to the client and from the upstream, in the queues of the relay's two sockets."""
    held: dict[tuple[int, int], int] = {}  # by the socket's ports: the table is read in pieces, and may have one twice
    for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]:
        fields = line.split()
        local, remote = (int(fields[column].split(":")[1], 16) for column in (1, 2))
        sent, received = (int(queue, 16) for queue in fields[4].split(":"))
        if (local, remote) == (port, client_port):
            held[local, remote] = sent
        elif remote == upstream_port:
            held[local, remote] = received
    return sum(held.values())
