"""How often a request for a stream reaches the upstream, and its headers each time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr

from relay.errors import UpstreamProtocolError, UpstreamStatusError, UpstreamUnreachableError
from relay.settings import Settings
from relay.upstream.body import Response
from relay.upstream.upstream import Upstream
from relay.upstream.wire.pool import REST_SECONDS
from tests.scripted import listening

PATH = "/chat/completions"
EVENTS = b"data: [DONE]\n\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%s" % (len(EVENTS), EVENTS)
# So that a test does not wait as long as a caller would.
AT_ONCE = b"retry-after-ms: 1\r\n"

Asked = list[tuple[dict[str, str], bytes]]
Reply = Callable[[int], bytes | None]


@contextlib.asynccontextmanager
async def upstream(reply: Reply, *, retries: int = 2) -> AsyncIterator[tuple[Upstream, Asked]]:
    """An upstream whose server answers its n-th request with `reply(n)` and keeps the connection; None: closes it."""
    asked: Asked = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[1:-2]
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                asked.append((headers, await reader.readexactly(int(headers["content-length"]))))
                answer = reply(len(asked) - 1)
                if answer is None:
                    break
                writer.write(answer)
        writer.close()

    async with listening(handle) as port:
        settings = Settings(upstream_retries=retries, _env_file=None)  # type: ignore[call-arg]
        made = Upstream(settings.upstream, f"http://127.0.0.1:{port}/v1", SecretStr("a-key"))
        try:
            yield made, asked
        finally:
            await made.close()


async def read(stream: Response) -> bytes:
    content = b""
    while chunk := await stream.body.read():
        content += chunk
    stream.body.close()
    return content


def run(reply: Reply, use: Callable[[Upstream], Awaitable[Any]], *, retries: int = 2) -> Asked:
    async def within() -> Asked:
        async with upstream(reply, retries=retries) as (made, asked):
            await use(made)
            return asked

    return asyncio.run(within())


def refusal(status: int, more: bytes = AT_ONCE) -> bytes:
    return b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n%s\r\n" % (status, more)


def test_a_refused_request_is_sent_again_as_it_was_and_says_which_attempt_it_is() -> None:
    async def use(made: Upstream) -> None:
        stream = await made.stream(PATH, b'{"n": 1}', {"traceparent": "00-a-b-01"})
        assert await read(stream) == EVENTS

    asked = run(lambda number: refusal(503) if number < 2 else STREAM, use)
    assert [headers["x-stainless-retry-count"] for headers, _ in asked] == ["0", "1", "2"]
    assert {body for _, body in asked} == {b'{"n": 1}'}
    assert len({headers["idempotency-key"] for headers, _ in asked}) == 1
    first = asked[0][0]
    assert first["authorization"] == "Bearer a-key"
    assert first["accept"] == "text/event-stream"
    assert first["accept-encoding"] == "identity"
    assert first["traceparent"] == "00-a-b-01"
    # Of the machine it says nothing.
    assert {name for name in first if name.startswith("x-stainless-")} == {"x-stainless-retry-count"}


def test_a_refusal_that_stays_is_handed_on() -> None:
    async def use(made: Upstream) -> None:
        with pytest.raises(UpstreamStatusError) as raised:
            await made.stream(PATH, b"{}", {})
        assert (raised.value.status, raised.value.headers["retry-after-ms"]) == (429, "1")

    assert len(run(lambda _: refusal(429), use, retries=1)) == 2


def test_a_request_that_is_wrong_is_sent_once() -> None:
    async def use(made: Upstream) -> None:
        with pytest.raises(UpstreamStatusError):
            await made.stream(PATH, b"{}", {})

    assert len(run(lambda _: refusal(400), use)) == 1


@pytest.mark.parametrize("status", [307, 600, 999])
def test_a_status_that_is_no_answer_is_the_upstreams_fault(status: int) -> None:
    async def use(made: Upstream) -> None:
        for ask in (made.stream(PATH, b"{}", {}), made.answer(PATH, b"{}", {})):
            with pytest.raises(UpstreamProtocolError, match=str(status)):
                await ask

    run(lambda _: refusal(status, b"Location: /elsewhere\r\n"), use, retries=0)


def test_a_request_that_brings_its_upstream_down_is_not_sent_on_every_idle_connection() -> None:
    idle = 8

    async def use(made: Upstream) -> None:
        opened = await asyncio.gather(*(made.stream(PATH, b"{}", {}) for _ in range(idle)))
        for stream in opened:
            assert await read(stream) == EVENTS
        await asyncio.sleep(2 * REST_SECONDS)
        with pytest.raises(UpstreamUnreachableError, match="without an answer"):
            await made.stream(PATH, b"kills", {})

    asked = run(lambda number: STREAM if number < idle else None, use, retries=0)
    assert [body for _, body in asked].count(
        b"kills"
    ) == 2  # on one that was kept, which may have been closed, and a new one
