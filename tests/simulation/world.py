"""One seed: the relay as it is served, its upstream and its clients, each a machine of the simulated network.

The relay's own parts all run: connection, gate, routes, streams, hub, sweep, HTTP client. Left out are the agent (a thread),
the kernel's buffers (a write counts as held until its reader has it) and uvloop. The upstream and most clients are those of
the chaos suite.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import socket
from collections.abc import Callable
from typing import Any

import simloop
from simloop._transports import _SimStreamTransport

from . import virtual  # noqa: F401  # before the relay
from .truth import Truth

from diagnostics.agent.instrument import asgi  # isort: skip
from relay.app import create_app  # isort: skip
from relay.client.connection import ClientConnection  # isort: skip
from relay.serving.server import RelayServer  # isort: skip
from relay.settings import Settings, load  # isort: skip
from relay.upstream.wire import dial  # isort: skip
from tests.chaos import faults  # isort: skip
from tests.chaos.clients import CLIENTS, Mix, Wrong, judge, read_response  # isort: skip
from tests.chaos.faults import FAULTS, HARMLESS, Script  # isort: skip
from tests.chaos.seeds import ANSWER_FAULTS  # isort: skip
from tests.chaos.upstream import serve as serve_upstream  # isort: skip

__all__ = ["SETTINGS", "Looks", "live"]

SETTINGS = {
    "memory_share": 0,
    "max_streams": 8,
    "max_connections": 40,
    "requests_bytes": 1024 * 1024,
    "stream_budget_bytes": 256 * 1024,
    "topics_bytes": 8192,
    "topic_event_bytes": 1024,
    "subscriber_bytes": 4096,
    "read_timeout_seconds": 5,
    "write_timeout_seconds": 3,
    "idle_timeout_seconds": 6,
    "stream_timeout_seconds": 20,
    "response_timeout_seconds": 5,
    "head_timeout_seconds": 3,
    "request_body_timeout_seconds": 3,
    "keep_alive_seconds": 2,
    "heartbeat_seconds": 1,
    "upstream_retries": 1,
    "breaker_failures": 1000000,
    "drain_seconds": 1,
}
# Of the chaos suite's clients those that look at their connection and not at the kernel's tables, and do not send without end:
# the simulated network resets nobody who sends to a connection that the other side has closed with bytes unread.
SIMULATED = (
    "fast", "slow", "with_a_large_body", "event_source", "pipelining", "leaving", "resetting", "half_closing",
    "slowloris_body",
)  # fmt: skip
# After all clients have gone: longer than any deadline of SETTINGS.
QUIET_SECONDS = 60.0
# What a client may be waited for, in virtual seconds.
MOST_SECONDS = 300.0
ENDLESS_BYTES = 512 * 1024
SEGMENT_BYTES = 16 * 1024
RELAY = ("relay", 8080)

asgi._AgentOfApp.start = lambda self: None  # type: ignore[method-assign]  # a thread; nothing of it is simulated
asgi._AgentOfApp.stop = lambda self: None  # type: ignore[method-assign]
ClientConnection._unacknowledged = lambda self: self.transport.get_write_buffer_size()  # type: ignore[method-assign]  # no kernel
faults.ENDLESS_BYTES = ENDLESS_BYTES

_write = _SimStreamTransport.write


def _in_segments(transport: Any, data: Any) -> None:
    """As a network carries it: the simulated one hands over each write as a whole, also to who has asked it to wait.

    What is written to a connection that is closing is dropped, as asyncio's and uvloop's transports do.
    """
    if transport.is_closing():
        return
    view = memoryview(data)
    for at in range(0, len(view), SEGMENT_BYTES):
        _write(transport, bytes(view[at : at + SEGMENT_BYTES]))


_SimStreamTransport.write = _in_segments  # type: ignore[method-assign]


class Looks(simloop.SimLoop):
    """A loop that has the truth looked at after every step."""

    look: Callable[[], None] | None = None

    def _step(self) -> None:
        super()._step()
        look, self.look = self.look, None
        if look is not None:
            look()
            self.look = look  # else it was told once, and the loop is only taken down


async def live() -> Truth:
    """Run the loop's seed to its end, on a Looks. Raises what is wrong with it."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Looks)
    seed = loop.seed
    random.seed(seed)
    chance = random.Random(seed)
    loop.net.set_defaults(latency=(0.0005, chance.choice((0.001, 0.02, 0.2))))
    loop.net.set_flow_control()
    upstream = loop.net.host("upstream").create_task(_upstream())
    settings = load(**SETTINGS)
    serving: asyncio.Future[Truth] = loop.create_future()
    ending = asyncio.Event()
    relay = loop.net.host("relay").create_task(_relay(settings, serving, ending))
    await asyncio.wait({relay, serving}, return_when=asyncio.FIRST_COMPLETED)
    truth = await serving if serving.done() else await relay
    loop.look = truth.look
    known = asyncio.all_tasks()  # those that serve as long as the relay does
    clients = [
        loop.net.host(f"client{number}").create_task(_client(kind, Mix(RELAY, script, random.Random(script.seed))))
        for number, (kind, script) in enumerate(_mix(chance, seed))
    ]
    clients.append(loop.net.host("resuming").create_task(_resuming(chance, seed)))
    clients.append(loop.net.host("no_head").create_task(_never_a_head()))
    clients += [loop.net.host("deaf").create_task(_deaf(Mix(RELAY, Script("none", seed, 400, True), chance)))]
    _, waiting = await asyncio.wait(clients, timeout=MOST_SECONDS)
    if waiting:
        raise Wrong(f"clients still wait after {MOST_SECONDS:g} s: {sorted(map(_where, waiting))}")
    for client in clients:
        client.result()
    await asyncio.sleep(QUIET_SECONDS)
    tasks = loop.net._tasks["relay"]  # it keeps those that have ended, too, and with them what they raised
    tasks[:] = [task for task in tasks if not task.done()]
    # The simulator's own frames hold a callback that raised, in a cycle that uvloop has not (asyncio breaks its own). What of
    # the relay waits for the collector is looked for by tests/relay/serving/test_garbage.py.
    gc.collect()
    truth.at_the_end(set(tasks) - known)
    ending.set()
    await relay
    loop.look = None
    upstream.cancel()
    await asyncio.wait([upstream])
    return truth


def _mix(chance: random.Random, seed: int) -> list[tuple[str, Script]]:
    found = []
    for number in range(chance.randrange(2, 8)):
        kind = chance.choice(SIMULATED)
        streams = chance.random() < 0.8 or kind == "event_source"
        kinds = tuple(FAULTS) if streams else ANSWER_FAULTS
        if chance.random() < 0.4:
            kinds = tuple(fault for fault in kinds if fault in HARMLESS)
        # Megabytes that a simulated network would carry in packets of Python.
        kinds = tuple(fault for fault in kinds if fault != "large_answer")
        count = chance.choice((1, 5, 20, 100)) if streams else chance.choice((1, 10, 300))
        found.append((kind, Script(chance.choice(kinds), seed * 100 + number, count, streams)))
    return found


def _where(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack()
    return f"{task.get_coro()} {frames[-1].f_code.co_name if frames else ''}"


async def _upstream() -> None:
    server = await asyncio.start_server(serve_upstream, "upstream", 80)
    async with server:
        await server.serve_forever()


async def _relay(settings: Settings, serving: asyncio.Future[Truth], ending: asyncio.Event) -> Any:
    """As `relay serve` does it, but for signals and sockets."""
    relay = create_app(settings, "http://upstream/v1")
    server = RelayServer(relay, lambda: None, lambda: None)
    config = server.config
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.lifespan.startup()
    state = server.server_state
    listening = await asyncio.get_running_loop().create_server(
        lambda: config.http_protocol_class(config=config, server_state=state, app_state=server.lifespan.state), *RELAY
    )
    ticking = asyncio.create_task(_tick(server))
    assert relay.upstream is not None
    pool = relay.upstream._pairs[0][0]._transport._pool
    serving.set_result(Truth(relay, state.connections, pool))
    try:
        await ending.wait()
    finally:
        ticking.cancel()
        listening.close()
        await server.lifespan.shutdown()


async def _addresses(_: dial.Dialler, host: str, port: int) -> dial.Addresses:
    """Of the simulated network: it has no threads."""
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def _connect(sock: socket.socket, address: Any) -> None:
    await asyncio.get_running_loop().sock_connect(sock, address)


dial.Dialler.addresses = _addresses  # type: ignore[method-assign]
dial.connect = _connect


async def _tick(server: RelayServer) -> None:
    """What the server does about every second (RelayServer.on_tick)."""
    while True:
        await asyncio.sleep(1.0)
        server._bounds.end_overdue()


async def _client(kind: str, mix: Mix) -> None:
    await asyncio.sleep(mix.chance.random() * 2)
    try:
        await CLIENTS[kind](mix)
    except Wrong as wrong:
        # More clients than streams are let in, which is an answer, too.
        if "status 503" not in str(wrong):
            raise Wrong(f"client {kind}, upstream {mix.script}: {wrong}") from None
    except OSError:
        pass  # reset by the relay, as it may


async def _never_a_head() -> None:
    """Sends a head a line at a time, and is let go in time."""
    reader, writer = await asyncio.open_connection(*RELAY)
    reading = asyncio.create_task(reader.read())
    with contextlib.suppress(OSError):
        for number in range(100):
            writer.write(b"GET / HTTP/1.1\r\n" if not number else b"x-%d: y\r\n" % number)
            await asyncio.wait([reading], timeout=0.2)
            if reading.done():
                reading.result()
                break
        else:
            raise Wrong("a head that never ends was waited for")
    writer.transport.abort()


async def _deaf(mix: Mix) -> None:
    """Asks for a stream, reads nothing of it, and is let go."""
    reader, writer = await asyncio.open_connection(*RELAY)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads
    writer.write(mix.post())
    await asyncio.sleep(15)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    with contextlib.suppress(OSError):
        judge(mix, await read_response(reader), stayed=False)
    writer.close()


async def _resuming(chance: random.Random, seed: int) -> None:
    """Publishes events and reads them with breaks; together its readings are all of them, each once, in their order."""
    got: list[int] = []
    last = ""
    published = 8
    publishing: asyncio.Task[int] | None = None
    until = asyncio.get_running_loop().time() + 40
    while len(got) < published and asyncio.get_running_loop().time() < until:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            async with asyncio.timeout(chance.random() * 2 + 0.5):
                reader, writer = await asyncio.open_connection(*RELAY)
                try:
                    resume = f"last-event-id: {last}\r\n" if last else ""
                    writer.write(f"GET /v1/topics/t{seed} HTTP/1.1\r\nhost: localhost\r\n{resume}\r\n".encode())
                    head = await reader.readuntil(b"\r\n\r\n")
                    if b" 200 " not in head.split(b"\r\n")[0]:
                        await asyncio.sleep(0.5)
                        continue
                    while True:
                        line = (await reader.readuntil(b"\n")).strip()
                        if line.startswith(b"id: "):
                            last = line[4:].decode()
                            if publishing is None:
                                publishing = asyncio.create_task(_publish(seed, published))
                        elif line.startswith(b"data: "):
                            got.append(json.loads(line[6:])["n"])
                finally:
                    writer.transport.abort()
    if publishing is None:
        return  # never let in: as many streams as there may be were open all the time
    published = await publishing
    if got != list(range(len(got))) or (len(got) < published and asyncio.get_running_loop().time() < until):
        raise Wrong(f"resumed readings are {got}, published were {published}")


async def _publish(seed: int, count: int) -> int:
    """How many were taken."""
    reader, writer = await asyncio.open_connection(*RELAY)
    try:
        for number in range(count):
            body = b'{"n":%d}' % number
            writer.write(
                b"POST /v1/topics/t%d HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n" % (seed, len(body)) + body
            )  # fmt: skip
            answer = await read_response(reader)
            if answer is None or answer.status != 201:
                return number
            await asyncio.sleep(0.3)
    finally:
        writer.transport.abort()
    return count
