"""Requests of a kind are those that any openai client builds, and are not built anew each time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from openai import APIStatusError, AsyncOpenAI, Omit
from openai._models import FinalRequestOptions

from relay.upstream.openai_client import Kind, OpenAIClient

URL = "http://upstream.test/v1/chat/completions"
HEADERS: dict[str, str | Omit] = {
    "Accept-Encoding": "identity",
    "Accept": "text/event-stream",
    "X-Stainless-OS": Omit(),
}
TIMEOUT = httpx2.Timeout(connect=1.0, read=2.0, write=3.0, pool=4.0)
TRACE = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}


class Sees(httpx2.AsyncBaseTransport):
    """Answers with these, one by one, and keeps the requests."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = [*statuses]
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        self.requests.append(request)
        return httpx2.Response(self.statuses.pop(0), content=b"{}", request=request)


def client(made: Callable[..., Any], transport: Sees) -> Any:
    return made(
        api_key="a-key", base_url="http://upstream.test/v1", max_retries=2,
        http_client=httpx2.AsyncClient(transport=transport),
    )  # fmt: skip


def shown(request: httpx2.Request) -> tuple[str, str, list[tuple[bytes, bytes]], bytes, Any]:
    headers = sorted((name.lower(), value) for name, value in request.headers.raw)
    return request.method, str(request.url), headers, request.content, request.extensions["timeout"]


def test_a_request_of_a_kind_is_the_one_that_the_openai_client_builds() -> None:
    any_client = AsyncOpenAI(api_key="a-key", base_url="http://upstream.test/v1", http_client=httpx2.AsyncClient())
    transport = Sees(200, 200, 200)
    own = client(OpenAIClient, transport)
    kind = Kind(URL, HEADERS, TIMEOUT)

    async def send() -> None:
        for content, more in ((b'{"n": 1}', TRACE), (b"", {}), (b"x" * 100_000, {"tracestate": "v=1"})):
            await own.send(kind, content, more)
            built = any_client._build_request(
                FinalRequestOptions.construct(
                    method="post", url=URL, headers={**HEADERS, **more}, timeout=TIMEOUT, content=content
                )
            )
            assert shown(transport.requests[-1]) == shown(built)

    asyncio.run(send())


def test_each_attempt_says_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Sees(503, 503, 200)
    own = client(OpenAIClient, transport)
    monkeypatch.setattr(own, "_calculate_retry_timeout", lambda *_: 0.0)
    asyncio.run(own.send(Kind(URL, HEADERS, TIMEOUT), b"{}", TRACE))
    assert [request.headers["x-stainless-retry-count"] for request in transport.requests] == ["0", "1", "2"]
    assert {request.content for request in transport.requests} == {b"{}"}
    assert {request.headers["traceparent"] for request in transport.requests} == {TRACE["traceparent"]}


def test_an_error_is_the_clients() -> None:
    with pytest.raises(APIStatusError):
        asyncio.run(client(OpenAIClient, Sees(400)).send(Kind(URL, HEADERS, TIMEOUT), b"{}", {}))


def test_the_client_builds_the_first_of_a_kind_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """That this fails may mean that the client has another name for what builds a request."""
    built: list[str] = []
    builds = AsyncOpenAI._build_request

    def counted(self: AsyncOpenAI, options: FinalRequestOptions, **more: Any) -> httpx2.Request:
        built.append(options.url)
        return builds(self, options, **more)

    monkeypatch.setattr(AsyncOpenAI, "_build_request", counted)
    own = client(OpenAIClient, Sees(200, 200, 200))
    kind = Kind(URL, HEADERS, TIMEOUT)

    async def send() -> None:
        for _ in range(3):
            await own.send(kind, b"{}", TRACE)

    asyncio.run(send())
    assert built == [URL]
