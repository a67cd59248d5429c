"""The openai client, which builds once what all streams of a kind have in common.

For each request it deep-copies the defaults of its options, merges four maps of headers and checks them, parses the URL, prints
it and has it parsed again: a tenth of what the opening of a stream costs, with the same outcome each time. Here it does so for
the first request of a kind (`Kind`), and those that follow are that one, with a body and a few headers of their own. Attempts,
time-outs and errors are the client's, for all of them.

At each step it also asks whether a token has to be fetched for the request. The relay has a key, which stands in the headers:
these hooks are those of the client's own base class, which do nothing.

The names that begin with `_` are the client's own. Where a release has another for `_build_request`, requests are built as by
any openai client, and a test says so; where it has no such hook, this file cannot be imported.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final

import httpx2
from openai import AsyncOpenAI, AsyncStream, Omit, __version__
from openai._base_client import AsyncAPIClient
from openai._models import FinalRequestOptions

__all__ = ["Kind", "OpenAIClient", "idempotency_key"]

# What differs from request to request; httpx2 counts the content, and the client its attempts.
_OWN: Final = frozenset({b"content-length", b"x-stainless-retry-count"})
_STREAM: Final = AsyncStream[Any]


class Kind:
    """POST requests to `url` that differ in their content and in what headers `send` is given, none of which is of these."""

    __slots__ = ("_built", "_headers", "_options")

    def __init__(self, url: str, headers: Mapping[str, str | Omit], timeout: httpx2.Timeout) -> None:
        self._headers = headers
        self._options = FinalRequestOptions.construct(method="post", url=url, headers=headers, timeout=timeout)
        self._built: httpx2.Request | None = None

    def options(self, content: bytes, headers: Mapping[str, str]) -> FinalRequestOptions:
        """Of one request, by whatever client."""
        merged = _Headers({**self._headers, **headers})
        merged.kind, merged.own = self, headers
        return self._options.model_copy(
            update={"content": content, "headers": merged, "idempotency_key": idempotency_key()}
        )

    def request(self, client: OpenAIClient, content: bytes, own: Mapping[str, str], retries: int) -> httpx2.Request:
        """One request, as the client would have built it."""
        built = self._built
        if built is None:
            built = self._built = client.build(self._options)
            built.headers = httpx2.Headers([pair for pair in built.headers.raw if pair[0].lower() not in _OWN])
        headers = [
            *built.headers.raw,
            (b"content-length", b"%d" % len(content)),
            (b"x-stainless-retry-count", b"%d" % retries),
            # Latin-1 has a character for every byte: a caller's header goes on as it came.
            *((name.encode("latin-1"), value.encode("latin-1")) for name, value in own.items()),
        ]
        return _BuiltRequest(built, headers, content)


class _BuiltRequest(httpx2.Request):
    """`like` with other headers and content, all of it ready: nothing is parsed, and no encoding is guessed."""

    def __init__(self, like: httpx2.Request, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
        self.method, self.url, self.extensions = like.method, like.url, {**like.extensions}
        self.headers = httpx2.Headers(headers, encoding="latin-1")
        self.stream = httpx2.ByteStream(content)


class _Headers(dict[str, Any]):
    """One request's headers as the client knows them, and how it can do without."""

    __slots__ = ("kind", "own")

    kind: Kind
    own: Mapping[str, str]


class OpenAIClient(AsyncOpenAI):
    """The openai client, with `send` for what is of a kind."""

    async def send(self, kind: Kind, content: bytes, headers: Mapping[str, str]) -> httpx2.Response:
        """Post this content and these headers besides the kind's. Raises what the client does. The body is not read."""
        # Asked for as an httpx2.Response, it comes as one; the client's types speak of its stream class instead.
        response: Any = await self.request(
            httpx2.Response, kind.options(content, headers), stream=True, stream_cls=_STREAM
        )
        assert isinstance(response, httpx2.Response)
        return response

    @property
    def user_agent(self) -> str:
        """As any openai client says, which says the name of its class."""
        return f"{AsyncOpenAI.__name__}/Python {__version__}"

    def build(self, options: FinalRequestOptions) -> httpx2.Request:
        """As any openai client."""
        return super()._build_request(options)

    def _build_request(self, options: FinalRequestOptions, *, retries_taken: int = 0) -> httpx2.Request:
        headers = options.headers
        content = options.content
        if isinstance(headers, _Headers) and isinstance(content, bytes):
            return headers.kind.request(self, content, headers.own, retries_taken)
        return super()._build_request(options, retries_taken=retries_taken)

    # Hooks for tokens, of which there are none.
    _prepare_options = AsyncAPIClient._prepare_options
    _prepare_request = AsyncAPIClient._prepare_request
    _send_request = AsyncAPIClient._send_request
    custom_auth = AsyncAPIClient.custom_auth


def idempotency_key() -> str:
    """The same for all of a request's attempts. The client would make one with a system call, whether it is sent or not."""
    return f"relay-{random.getrandbits(128):032x}"
