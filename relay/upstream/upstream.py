"""The upstream: the openai client owns the request, the retries before the first byte, and the errors.

A request's JSON goes out as the bytes that came in, so that fields which neither the client nor the relay knows arrive. An
answer is never parsed into objects: a stream is handed over as a Body (see body.py), everything else as JSON bytes.
Every failure leaves this file as one of the errors of errors.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError, AsyncStream, Omit
from pydantic import SecretStr

from ..errors import (
    UpstreamError,
    UpstreamProtocolError,
    UpstreamStatusError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from .body import BODY, Body
from .http_client import StraightClient
from .openai_client import Kind, OpenAIClient, idempotency_key
from .options import UpstreamOptions
from .transport import transport_to

__all__ = ["Answer", "Upstream", "UpstreamStream"]

# What a client may learn from the upstream's answer besides its body: when to come again, and what to quote in a report.
FORWARDED_HEADERS: Final = frozenset({"retry-after", "retry-after-ms", "x-should-retry", "x-request-id"})
FORWARDED_PREFIX: Final = "x-ratelimit-"

# The client's account of the machine that it runs on: no business of an upstream's, and 4 % of what a stream costs.
UNTOLD: Final = dict.fromkeys(
    (
        "X-Stainless-Lang", "X-Stainless-Package-Version", "X-Stainless-OS", "X-Stainless-Arch", "X-Stainless-Runtime",
        "X-Stainless-Runtime-Version", "X-Stainless-Async",
    ),
    Omit(),
)  # fmt: skip

JSON_BODY: Final = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that does not stream."""

    status: int
    headers: dict[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class UpstreamStream:
    """An open stream. It holds the body and nothing of the request, whose bytes may be millions and are free by now."""

    body: Body
    headers: dict[str, str]

    async def read(self) -> bytes:
        """What has arrived; b"" at the end. Raises UpstreamTimeoutError and UpstreamUnreachableError."""
        try:
            return await self.body.read()
        except httpx2.TimeoutException as error:
            raise UpstreamTimeoutError("the upstream fell silent") from error
        except httpx2.HTTPError as error:
            raise _named(error) from error

    def flow(self, took: Callable[[bytes], None], ended: Callable[[UpstreamError | None], None]) -> bool:
        """Hand over what comes, as it comes, instead of being read; False where this stream can only be read."""
        return self.body.flow(took, lambda error: ended(None if error is None else _named(error)))

    def keep(self) -> None:
        self.body.keep()

    def pause(self) -> None:
        self.body.pause()

    def resume(self) -> None:
        self.body.resume()

    @property
    def parsed_bytes(self) -> int:
        """What has come and was not read yet."""
        return self.body.parsed_bytes

    def close(self) -> None:
        self.body.close()


class Upstream:
    """One upstream and the pool of connections to it. Made and closed inside of a running loop."""

    def __init__(self, options: UpstreamOptions, base_url: str, api_key: SecretStr | None) -> None:
        parts = urlsplit(base_url)
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self._max_response_bytes = options.max_response_bytes
        self._stream_timeout = _timeout(options, options.stream_seconds)
        self._answer_timeout = _timeout(options, options.answer_seconds)
        transport = transport_to(
            parts.scheme,
            self.host,
            max_connections=options.max_connections,
            budget=options.budget,
        )
        key = api_key.get_secret_value() if api_key else None
        # Compressed events would come in lumps, and what is relayed as it is must not need unpacking.
        self._headers: dict[str, str | Omit] = {"Accept-Encoding": "identity"}
        if key is None:
            self._headers["Authorization"] = Omit()
        self._client = OpenAIClient(
            api_key=key or "unused",
            base_url=base_url,
            max_retries=options.retries,
            default_headers=UNTOLD,  # type: ignore[arg-type]  # it takes Omit as it does for one request
            http_client=StraightClient(transport),
        )
        self._base_url = str(self._client.base_url).rstrip("/")
        self._streams: dict[str, Kind] = {}  # by path, of which there are a few

    async def stream(self, path: str, content: bytes, more: Mapping[str, str]) -> UpstreamStream:
        """Post a request that streams to `path`, below the base URL, with `more` headers. Raises UpstreamError."""
        kind = self._streams.get(path)
        if kind is None:
            asked = {**self._headers, **JSON_BODY, "Accept": "text/event-stream"}
            kind = self._streams[path] = Kind(self._base_url + path, asked, self._stream_timeout)
        response = await self._send(self._client.send(kind, content, more))
        body = _body(response)
        headers = _lowered(response)
        problem = _not_a_stream(headers)
        if problem:
            body.close()
            raise UpstreamProtocolError(problem)
        body.untimed()
        return UpstreamStream(body, _forwarded(headers))

    async def answer(self, path: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        """Post a request that does not stream to `path`, below the base URL. Raises UpstreamError."""
        response = await self._send(
            self._client.post(
                self._base_url + path,
                cast_to=httpx2.Response,
                content=content,
                options={
                    "headers": {**self._headers, **headers, **JSON_BODY},
                    "timeout": self._answer_timeout,
                    "idempotency_key": idempotency_key(),
                },
                stream=True,  # so that the body is read here, where its size has a limit
                stream_cls=AsyncStream[Any],
            )
        )
        return await self._whole(response)

    async def models(self) -> Answer:
        """The upstream's list of models. Raises UpstreamError."""
        response = await self._send(
            self._client.get(
                "/models",
                cast_to=httpx2.Response,
                options={"headers": self._headers, "timeout": self._stream_timeout},
                stream=True,
                stream_cls=AsyncStream[Any],
            )
        )
        return await self._whole(response)

    async def close(self) -> None:
        await self._client.close()

    async def _send(self, request: Awaitable[object]) -> httpx2.Response:
        try:
            response = await request
        except APIStatusError as error:
            raise _status_error(error) from error
        except (APIError, httpx2.HTTPError) as error:
            raise _named(error) from error
        # Asked for as an httpx2.Response, it comes as one; the client's types speak of its stream class instead.
        assert isinstance(response, httpx2.Response)
        return response

    async def _whole(self, response: httpx2.Response) -> Answer:
        body = _body(response)
        content = bytearray()
        try:
            while chunk := await body.read():
                content += chunk
                if len(content) > self._max_response_bytes:
                    raise UpstreamProtocolError(
                        f"the upstream's answer is larger than {self._max_response_bytes} bytes (RELAY_MAX_RESPONSE_BYTES)"
                    )
        except httpx2.HTTPError as error:
            raise _named(error) from error
        finally:
            body.close()
        named = _lowered(response)
        encoding = named.get("content-encoding", "identity")
        if encoding != "identity":
            raise UpstreamProtocolError(f"the upstream's answer is {encoding}-encoded although identity was asked for")
        headers = _forwarded(named)
        headers["content-type"] = named.get("content-type", "application/json")
        return Answer(response.status_code, headers, bytes(content))


def _timeout(options: UpstreamOptions, read: float) -> httpx2.Timeout:
    return httpx2.Timeout(connect=options.connect_seconds, read=read, write=read, pool=options.pool_seconds)


def _body(response: httpx2.Response) -> Body:
    body = response.extensions[BODY]
    assert isinstance(body, Body)
    return body


def _lowered(response: httpx2.Response) -> dict[str, str]:
    """Its headers by their names in lower case; Latin-1 has a character for every byte, so that what goes on is what came."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw}


def _not_a_stream(headers: Mapping[str, str]) -> str | None:
    media_type = headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "text/event-stream":
        return (
            f"the upstream answered a streaming request with {media_type or 'no content type'}, not text/event-stream"
        )
    encoding = headers.get("content-encoding", "identity")
    if encoding != "identity":
        return f"the upstream's stream is {encoding}-encoded although identity was asked for"
    return None


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in headers.items() if name in FORWARDED_HEADERS or name.startswith(FORWARDED_PREFIX)
    }


def _status_error(error: APIStatusError) -> UpstreamStatusError:
    response = error.response
    # The client has read it already. Whatever is not JSON (a proxy's HTML page) is replaced by our own words.
    is_json = response.headers.get("content-type", "").startswith("application/json")
    content = response.content if is_json and response.content else None
    return UpstreamStatusError(response.status_code, content, _forwarded(_lowered(response)))


def _named(error: Exception) -> UpstreamError:
    """The relay's error for one of the client's or the transport's. Its text names no address: clients read it."""
    if isinstance(error, (APITimeoutError, httpx2.TimeoutException)):
        return UpstreamTimeoutError("the upstream did not answer in time")
    if isinstance(error, (httpx2.ReadError, httpx2.RemoteProtocolError)):
        return UpstreamUnreachableError("the upstream broke the connection off")
    if isinstance(error, APIConnectionError) and isinstance(error.__cause__, httpx2.ReadError):
        return UpstreamUnreachableError("the upstream closed the connection without an answer")
    if isinstance(error, (APIConnectionError, httpx2.ConnectError)):
        return UpstreamUnreachableError("the upstream cannot be reached")
    return UpstreamProtocolError("the upstream's answer cannot be used")
