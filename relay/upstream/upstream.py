"""One upstream: sends requests to it over the relay's own transport, with the openai client's headers (client_headers.py).

A request is a POST of the JSON bytes that came in, so that fields which neither the openai client nor the relay knows arrive.
An answer is never parsed into objects: a stream is returned as a Body (body.py); an answer that does not stream as JSON bytes
if it is small, else as its beginning and the Body of the rest, so that no answer above WHOLE_BYTES is ever whole in memory.
Retries and their pauses are those of the openai client (retry.py). Every failure is raised as an error of errors.py.
"""

from __future__ import annotations

import asyncio
import random
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

from ..errors import (
    UpstreamError,
    UpstreamProtocolError,
    UpstreamStatusError,
)
from .body import Body, Response
from .client_headers import client_headers
from .options import Timeouts, UpstreamOptions
from .retry import pause_seconds, worth_retrying
from .transport import Form, Headers, Target, Transport
from .wire.transport import WireTransport

__all__ = ["WHOLE_BYTES", "Answer", "Upstream"]

# An answer that does not stream is read to its end up to this size before the response starts, so that a failure is still an
# error with a status; most answers are a few kilobytes. A larger one is relayed as it comes (stream/answer.py).
WHOLE_BYTES: Final = 64 * 1024

# The headers of the upstream's answer that the client gets: when to retry, and an id to quote in a report.
FORWARDED_HEADERS: Final = frozenset({"retry-after", "retry-after-ms", "x-should-retry", "x-request-id"})
FORWARDED_PREFIX: Final = "x-ratelimit-"

_EVENTS: Final[Headers] = ((b"accept", b"text/event-stream"), (b"content-type", b"application/json"))
_JSON: Final[Headers] = ((b"accept", b"application/json"), (b"content-type", b"application/json"))

REDIRECTS: Final = range(300, 400)
REFUSALS: Final = range(400, 600)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that does not stream.

    content   the whole body, or its beginning
    rest      the rest of the body, for the caller to read and close; None where `content` is whole
    """

    status: int
    headers: dict[str, str]
    content: bytes
    rest: Body | None = None


class Upstream:
    """One upstream and the pool of connections to it. Must be made and closed inside of a running event loop."""

    def __init__(self, options: UpstreamOptions, base_url: str, api_key: SecretStr | None) -> None:
        base = Target.of(base_url)
        scheme, self.host, self.port = base.origin
        self._base_url = base_url.rstrip("/")
        self._options = options
        self._transport = _transport_to(scheme, self.host, options)
        self._headers = client_headers(base_url, api_key.get_secret_value() if api_key else None)
        self._forms: dict[tuple[str, Headers], Form] = {}  # by path and kind; there are a few

    async def stream(self, path: str, content: bytes, more: Mapping[str, str]) -> Response:
        """Post a request that streams to `path`, below the base URL, with `more` headers. Raises UpstreamError.

        Returns the open stream, whose headers are those that the client gets. It has no reference to the request.
        """
        response = await self._post(path, _EVENTS, more, content, self._options.stream)
        problem = _not_a_stream(response.headers)
        if problem:
            response.body.close()
            raise UpstreamProtocolError(problem)
        response.body.untimed()
        return Response(response.status, _forwarded(response.headers), response.body)

    async def answer(self, path: str, content: bytes, more: Mapping[str, str]) -> Answer:
        """Post a request that does not stream to `path`, below the base URL, with `more` headers. Raises UpstreamError."""
        return await self._answer(await self._post(path, _JSON, more, content, self._options.answer))

    async def models(self) -> Answer:
        """The upstream's list of models. Raises UpstreamError."""
        form = self._form("GET", "/models", _JSON[:1])
        return await self._answer(await self._ask(form, [], b"", self._options.stream))

    async def close(self) -> None:
        await self._transport.close()

    async def _post(
        self, path: str, kind: Headers, more: Mapping[str, str], content: bytes, timeouts: Timeouts
    ) -> Response:
        headers = [(b"idempotency-key", _idempotency_key())]
        # Latin-1 has a character for every byte: a caller's header goes on as it came.
        headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in more.items()]
        return await self._ask(self._form("POST", path, kind), headers, content, timeouts)

    def _form(self, method: str, path: str, kind: Headers) -> Form:
        form = self._forms.get((path, kind))
        if form is None:
            form = self._forms[path, kind] = Form(method, self._base_url + path, (*self._headers, *kind))
        return form

    async def _ask(self, form: Form, headers: Headers, content: bytes, timeouts: Timeouts) -> Response:
        """Send a request, and send it again after failures that are worth a retry (retry.py). Raises UpstreamError."""
        tried = 0
        while True:
            answer_headers: Mapping[str, str] = {}
            try:
                response = await self._transport.request(
                    form, [*headers, (b"x-stainless-retry-count", b"%d" % tried)], content, timeouts
                )
            except UpstreamError:
                if tried == self._options.retries:
                    raise
            else:
                if response.status < REDIRECTS.start:
                    return response
                answer_headers = response.headers
                if tried == self._options.retries or not worth_retrying(response.status, answer_headers, time.time()):
                    raise await self._refusal(response)
                response.body.close()
            chance = random.random()  # noqa: S311  # jitter, not a secret
            await asyncio.sleep(pause_seconds(tried, answer_headers, time.time(), chance))
            tried += 1

    async def _refusal(self, response: Response) -> UpstreamError:
        """The error for an answer that is no success, with the upstream's body unless it is larger than WHOLE_BYTES."""
        try:
            content, whole = await _beginning(response.body)
        except UpstreamError as error:
            return error
        finally:
            response.body.close()
        return _refused(response.status, response.headers, content if whole else b"")

    async def _answer(self, response: Response) -> Answer:
        """The answer in a successful response: whole, or its beginning and the body. Raises UpstreamError."""
        body, headers = response.body, response.headers
        forwarded = {**_forwarded(headers), "content-type": headers.get("content-type", "application/json")}
        handed_on = False
        try:
            encoding = headers.get("content-encoding", "identity")
            if encoding != "identity":
                raise UpstreamProtocolError(
                    f"the upstream's answer is {encoding}-encoded although identity was asked for"
                )
            length = headers.get("content-length", "")
            if length.isdecimal() and int(length) > self._options.max_response_bytes:
                raise UpstreamProtocolError(
                    f"the upstream's answer is larger than {self._options.max_response_bytes} bytes "
                    "(RELAY_MAX_RESPONSE_BYTES)"
                )
            content, whole = await _beginning(body)
            if whole:
                return Answer(response.status, forwarded, content)
            if length.isdecimal():
                forwarded["content-length"] = length
            handed_on = True
            return Answer(response.status, forwarded, content, body)
        finally:
            if not handed_on:
                body.close()


async def _beginning(body: Body) -> tuple[bytes, bool]:
    """The first WHOLE_BYTES of a body and up to one read more, and whether that is the whole body. Raises UpstreamError."""
    parts: list[bytes] = []
    size = 0
    while size <= WHOLE_BYTES:
        chunk = await body.read()
        if not chunk:
            return b"".join(parts), True
        parts.append(chunk)
        size += len(chunk)
    return b"".join(parts), False


def _transport_to(scheme: str, host: str, options: UpstreamOptions) -> Transport:
    """The transport to this host: through a proxy where the environment names one (HTTP_PROXY and the like), else direct."""
    if scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        from .proxied import ProxiedTransport

        return ProxiedTransport(max_connections=options.max_connections, budget=options.budget)
    return WireTransport(max_connections=options.max_connections, budget=options.budget)


def _idempotency_key() -> bytes:
    """A key for all attempts of one request. Not from os.urandom, which would be a system call for each stream."""
    return b"relay-%032x" % random.getrandbits(128)


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
    """The error for an answer with a status that is no success; `content` is its body, b"" where that is too large."""
    if status in REDIRECTS:
        return UpstreamProtocolError(
            f"the upstream answered with a redirect ({status}), which is not followed: its URL is what is configured"
        )
    if status not in REFUSALS:
        return UpstreamProtocolError(f"the upstream answered with status {status}, which HTTP does not know")
    # A body that is not JSON (a proxy's HTML page) is replaced by an error of the relay's own.
    is_json = headers.get("content-type", "").startswith("application/json")
    return UpstreamStatusError(status, content if is_json and content else None, _forwarded(headers))
