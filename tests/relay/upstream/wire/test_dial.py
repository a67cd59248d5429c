"""Sockets to upstreams: names are looked up without keeping anybody else waiting, and numeric addresses not at all."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from relay.upstream.wire import dial
from relay.upstream.wire.dial import Dialler
from tests.scripted import listening
from tests.silent_resolver import needs_namespaces, said_beside_it

# A server at a number and at a name of /etc/hosts, and many that ask for a name that only the resolver would know.
MANY_ASK = """
import asyncio
import uvloop
from relay.upstream.options import Timeouts
from relay.upstream.wire.pool import Pool

async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n")
    await writer.drain()
    await reader.read()
    writer.close()

async def ask(pool, host, port):
    connection, head = await pool.request(("http", host, port), b"GET / HTTP/1.1\\r\\n\\r\\n", b"", Timeouts(60, 60, 60))
    pool.release(connection)
    return head.status

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = Pool(max_connections=100, receive_buffer_bytes=65536, read_bytes=65536, flow_bytes=65536, limit_bytes=65536)
    waiting = [asyncio.create_task(ask(pool, "nobody.test", port)) for _ in range(20)]
    await asyncio.sleep(0.5)
    async with asyncio.timeout(30):
        print(await ask(pool, "127.0.0.1", port), await ask(pool, "localhost", port), flush=True)
    print(sum(task.done() for task in waiting), flush=True)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    await pool.close()
    server.close()

uvloop.run(main())
"""


@needs_namespaces
def test_a_resolver_that_is_silent_keeps_no_other_connection_from_being_made(tmp_path: Path) -> None:
    """All that ask for the name would be given up after a minute; uvloop's own lookups are made two at a time."""
    assert said_beside_it(tmp_path, MANY_ASK) == "200 200\n0\n"


class Resolver:
    """Takes the place of socket.getaddrinfo for names: each call waits until it is let go, and has an answer of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()
        self.answer: Any = None
        self._real = socket.getaddrinfo
        monkeypatch.setattr(dial.socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, port: int, *arguments: Any, **options: Any) -> Any:
        if options.get("flags") or not host.endswith(".test"):
            return self._real(host, port, *arguments, **options)
        self.asked.append(host)
        assert self.go.wait(60)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self._real("127.0.0.1", self.answer, *arguments, **options)


async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


def test_all_that_ask_for_a_name_at_once_wait_for_one_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[socket.socket]:
        async with listening(nothing) as resolver.answer:
            dialler = Dialler(65536)
            asking = [asyncio.create_task(dialler.dial("name.test", resolver.answer)) for _ in range(50)]
            leaves = asyncio.create_task(dialler.dial("name.test", resolver.answer))
            await asyncio.sleep(0.05)
            leaves.cancel()
            await asyncio.wait([leaves])
            resolver.go.set()
            made = await asyncio.gather(*asking)
            (await dialler.dial("name.test", resolver.answer)).close()
            for sock in made:
                assert sock.getpeername()[1] == resolver.answer
                sock.close()
            return made

    resolver = Resolver(monkeypatch)
    assert len(asyncio.run(main())) == 50
    assert resolver.asked == ["name.test"] * 2, "one for all of them, and one for who came later"


def test_a_lookup_that_takes_long_is_made_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with listening(nothing) as resolver.answer:
            dialler = Dialler(65536)
            asking = []
            for _ in range(4):
                asking.append(asyncio.create_task(dialler.dial("name.test", resolver.answer)))
                await asyncio.sleep(0.05)
            resolver.go.set()
            for sock in await asyncio.gather(*asking):
                sock.close()

    monkeypatch.setattr(dial, "AGAIN_SECONDS", 0.01)
    resolver = Resolver(monkeypatch)
    asyncio.run(main())
    assert resolver.asked == ["name.test"] * 2


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), socket.EAI_NONAME),
        (UnicodeError("label empty or too long"), errno.EINVAL),
    ],
    ids=["no such name", "not a name"],
)
def test_a_lookup_that_fails_is_an_error_of_each_that_asked(
    answer: Exception, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> list[Any]:
        dialler = Dialler(65536)
        return await asyncio.gather(*(dialler.dial("name.test", 80) for _ in range(3)), return_exceptions=True)

    resolver = Resolver(monkeypatch)
    resolver.answer = answer
    resolver.go.set()
    errors = asyncio.run(main())
    assert [error.errno for error in errors] == [code] * 3
    assert len({id(error) for error in errors}) == 3, "an error that several raise would hold the frames of all"


def test_without_a_thread_for_the_lookup_the_upstream_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(OSError, match="can't start new thread"):
        asyncio.run(Dialler(65536).dial("name.test", 80))


@pytest.mark.parametrize("uses_uvloop", [False, True])
def test_who_refuses_or_never_answers(uses_uvloop: bool) -> None:
    """A connect that is given up leaves nothing behind in the event loop."""

    async def main() -> None:
        dialler = Dialler(65536)
        with socket.socket() as refusing, socket.socket() as full:
            refusing.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError):
                await dialler.dial(*refusing.getsockname())
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            made: list[socket.socket] = []

            async def dial_until_full() -> None:
                while len(made) < 10:  # the queue of the kernel takes one or two
                    async with asyncio.timeout(0.3):
                        made.append(await dialler.dial(*full.getsockname()))

            with pytest.raises(TimeoutError):
                await dial_until_full()
            for sock in made:
                sock.close()

    if uses_uvloop:
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
