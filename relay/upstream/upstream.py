"""One upstream: its streams go straight over the relay's transport, everything else through the openai client.

A request's JSON goes out as the bytes that came in, so that fields which neither the client nor the relay knows arrive. An
answer is never parsed into objects: a stream is handed over as a Body (body.py), everything else as JSON bytes. A stream's
request is a POST of those bytes with a few headers, which needs no client; attempts and pauses are as the client's (retry.py).
Every failure leaves this file as one of the errors of errors.py.
"""

from __future__ import annotations

import asyncio
import random
import time
import urllib.request
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Final

import httpx2
from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError, AsyncOpenAI, Omit
from pydantic import SecretStr

from ..errors import (
    UpstreamError,
    UpstreamProtocolError,
    UpstreamStatusError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from .body import Body, Response
from .openai_transport import http_client
from .options import Timeouts, UpstreamOptions
from .retry import pause_seconds, worth_retrying
from .transport import Target, Transport
from .wire.transport import WireTransport

__all__ = ["Answer", "Upstream", "UpstreamStream"]

# What a client may learn from the upstream's answer besides its body: when to come again, and what to quote in a report.
FORWARDED_HEADERS: Final = frozenset({"retry-after", "retry-after-ms", "x-should-retry", "x-request-id"})
FORWARDED_PREFIX: Final = "x-ratelimit-"

# The client's account of the machine that it runs on, which is no business of an upstream's.
ACCOUNT_PREFIX: Final = "x-stainless-"
UNTOLD: Final = dict.fromkeys(
    (
        "X-Stainless-Lang", "X-Stainless-Package-Version", "X-Stainless-OS", "X-Stainless-Arch", "X-Stainless-Runtime",
        "X-Stainless-Runtime-Version", "X-Stainless-Async",
    ),
    Omit(),
)  # fmt: skip

REDIRECTS: Final = range(300, 400)
REFUSALS: Final = range(400, 600)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that does not stream."""

    status: int
    headers: dict[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class UpstreamStream:
    """An open stream. It holds the body and nothing of the request, whose bytes may be millions and are free by now.

    headers   what the client is told besides the body
    """

    body: Body
    headers: dict[str, str]


class Upstream:
    """One upstream and the pool of connections to it. Made and closed inside of a running loop."""

    def __init__(self, options: UpstreamOptions, base_url: str, api_key: SecretStr | None) -> None:
        base = Target.of(base_url)
        scheme, self.host, self.port = base.origin
        self._base_url = base_url.rstrip("/")
        self._options = options
        self._transport = _transport_to(scheme, self.host, options)
        key = api_key.get_secret_value() if api_key else None
        # Compressed events would come in lumps, and what is relayed as it is must not need unpacking.
        self._asked: dict[str, str | Omit] = {"Accept-Encoding": "identity"}
        if key is None:
            self._asked["Authorization"] = Omit()
        self._client = AsyncOpenAI(
            api_key=key or "unused",
            base_url=base_url,
            max_retries=options.retries,
            default_headers=UNTOLD,  # type: ignore[arg-type]  # it takes Omit as it does for one request
            http_client=http_client(self._transport, options.max_response_bytes),
        )
        self._stream_headers = _stream_headers(
            {**self._client.default_headers, **self._client.auth_headers, **self._asked}
        )
        self._targets: dict[str, Target] = {}  # of streams, by path: there are a few

    async def stream(self, path: str, content: bytes, more: Mapping[str, str]) -> UpstreamStream:
        """Post a request that streams to `path`, below the base URL, with `more` headers. Raises UpstreamError."""
        target = self._targets.get(path)
        if target is None:
            target = self._targets[path] = Target.of(self._base_url + path)
        headers = [
            *self._stream_headers,
            (b"idempotency-key", _idempotency_key()),
            # Latin-1 has a character for every byte: a caller's header goes on as it came.
            *((name.encode("latin-1"), value.encode("latin-1")) for name, value in more.items()),
        ]
        response = await self._post(target, headers, content)
        problem = _not_a_stream(response.headers)
        if problem:
            response.body.close()
            raise UpstreamProtocolError(problem)
        response.body.untimed()
        return UpstreamStream(response.body, _forwarded(response.headers))

    async def answer(self, path: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        """Post a request that does not stream to `path`, below the base URL. Raises UpstreamError."""
        return await self._whole(
            self._client.post(
                path,
                cast_to=httpx2.Response,
                content=content,
                options={
                    "headers": {**self._asked, **headers, "Content-Type": "application/json"},
                    "timeout": _of_httpx(self._options.answer),
                },
            )
        )

    async def models(self) -> Answer:
        """The upstream's list of models. Raises UpstreamError."""
        return await self._whole(
            self._client.get(
                "/models",
                cast_to=httpx2.Response,
                options={"headers": self._asked, "timeout": _of_httpx(self._options.stream)},
            )
        )

    async def close(self) -> None:
        await self._client.close()

    async def _post(self, target: Target, headers: list[tuple[bytes, bytes]], content: bytes) -> Response:
        """Post until an answer is not worth another try, or there were enough. Raises UpstreamError."""
        tried = 0
        while True:
            told: Mapping[str, str] = {}
            try:
                response = await self._transport.request(
                    "POST",
                    target,
                    [*headers, (b"x-stainless-retry-count", b"%d" % tried)],
                    content,
                    self._options.stream,
                )
            except UpstreamError:
                if tried == self._options.retries:
                    raise
            else:
                if response.status < REDIRECTS.start:
                    return response
                told = response.headers
                if tried == self._options.retries or not worth_retrying(response.status, told, time.time()):
                    raise await self._refusal(response)
                response.body.close()
            chance = random.random()  # noqa: S311  # it spreads those who come again, and hides nothing
            await asyncio.sleep(pause_seconds(tried, told, time.time(), chance))
            tried += 1

    async def _refusal(self, response: Response) -> UpstreamError:
        """The error for a refusal, read to its end."""
        limit = self._options.max_response_bytes
        content = bytearray()
        try:
            while chunk := await response.body.read():
                content += chunk
                if len(content) > limit:
                    return UpstreamProtocolError(
                        f"the upstream's answer is larger than {limit} bytes (RELAY_MAX_RESPONSE_BYTES)"
                    )
        except UpstreamError as error:
            return error
        finally:
            response.body.close()
        return _refused(response.status, response.headers, bytes(content))

    async def _whole(self, asking: Awaitable[httpx2.Response]) -> Answer:
        try:
            response = await asking
        except APIStatusError as error:
            raise _refused(error.status_code, _named(error.response), error.response.content) from error
        except (APIError, httpx2.HTTPError) as error:
            raise _own(error) from error
        headers = _named(response)
        encoding = headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise UpstreamProtocolError(f"the upstream's answer is {encoding}-encoded although identity was asked for")
        return Answer(
            response.status_code,
            {**_forwarded(headers), "content-type": headers.get("content-type", "application/json")},
            response.content,
        )


def _transport_to(scheme: str, host: str, options: UpstreamOptions) -> Transport:
    """By way of the proxy that the environment names for this host, or straight."""
    if scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        from .proxied import ProxiedTransport

        return ProxiedTransport(max_connections=options.max_connections, budget=options.budget)
    return WireTransport(max_connections=options.max_connections, budget=options.budget)


def _stream_headers(headers: Mapping[str, str | Omit]) -> list[tuple[bytes, bytes]]:
    """What every request for a stream says: what the client says of itself, and that it wants events."""
    told = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    told |= {"accept": "text/event-stream", "content-type": "application/json"}
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in told.items()
        if not name.startswith(ACCOUNT_PREFIX)
    ]


def _idempotency_key() -> bytes:
    """The same for all of a request's attempts. One of the system's random numbers would be a system call for each stream."""
    return b"relay-%032x" % random.getrandbits(128)


def _of_httpx(timeouts: Timeouts) -> httpx2.Timeout:
    return httpx2.Timeout(connect=timeouts.connect, read=timeouts.silence, write=timeouts.silence, pool=timeouts.pool)


def _named(response: httpx2.Response) -> dict[str, str]:
    """Its headers by their names in lower case, as `Response` has them."""
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


def _refused(status: int, headers: Mapping[str, str], content: bytes) -> UpstreamError:
    """The error for an answer that is no success."""
    if status in REDIRECTS:
        return UpstreamProtocolError(
            f"the upstream answered with a redirect ({status}), which is not followed: its URL is what is configured"
        )
    if status not in REFUSALS:
        return UpstreamProtocolError(f"the upstream answered with status {status}, which HTTP does not know")
    # Whatever is not JSON (a proxy's HTML page) is replaced by our own words.
    is_json = headers.get("content-type", "").startswith("application/json")
    return UpstreamStatusError(status, content if is_json and content else None, _forwarded(headers))


def _own(error: BaseException) -> UpstreamError:
    """The relay's error behind one of the client's: what its transport met. Its text names no address: clients read it."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, UpstreamError):
            return behind
        behind = behind.__cause__ or behind.__context__
    if isinstance(error, (APITimeoutError, httpx2.TimeoutException)):
        return UpstreamTimeoutError("the upstream did not answer in time")
    if isinstance(error, APIConnectionError):
        return UpstreamUnreachableError("the upstream cannot be reached")
    return UpstreamProtocolError("the upstream's answer cannot be used")
