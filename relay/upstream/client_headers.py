"""The headers of every request to an upstream: those that the openai client would send, asked of the client itself.

The client is imported for that alone. Where aiohttp is installed, the client imports it, too, for a transport that nobody asks
for here: 9 MiB of each relay and a tenth of its start. So it finds none. What needs aiohttp imports it later (proxied.py).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Final

import httpx2

from .transport import Headers

__all__ = ["client_headers"]


@contextlib.contextmanager
def _as_if_not_installed(name: str) -> Iterator[None]:
    """An import of the module `name` fails meanwhile, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # how Python's import system says that there is no such module
    try:
        yield
    finally:
        del sys.modules[name]


with _as_if_not_installed("aiohttp"):
    from openai import AsyncOpenAI, Omit

# The client's headers that describe the machine it runs on: not sent to an upstream.
_ACCOUNT_PREFIX: Final = "x-stainless-"
_OMITTED: Final = dict.fromkeys(
    (
        "X-Stainless-Lang", "X-Stainless-Package-Version", "X-Stainless-OS", "X-Stainless-Arch", "X-Stainless-Runtime",
        "X-Stainless-Runtime-Version", "X-Stainless-Async",
    ),
    Omit(),
)  # fmt: skip


def client_headers(base_url: str, key: str | None) -> Headers:
    """User agent, and the organization, the project and the key where they are configured; identity as the only encoding."""
    # The client only gives its headers: its transport never sends anything.
    client = AsyncOpenAI(
        api_key=key or "unused",
        base_url=base_url,
        default_headers=_OMITTED,  # type: ignore[arg-type]  # Omit works here as in the headers of one request
        http_client=httpx2.AsyncClient(transport=httpx2.AsyncBaseTransport()),
    )
    headers: dict[str, object] = {
        name.lower(): value for name, value in {**client.default_headers, **client.auth_headers}.items()
    }
    if key is None:
        headers.pop("authorization", None)
    headers.pop("accept", None)
    headers.pop("content-type", None)
    # Compression would hold events back, and the relay would have to decompress to find them.
    headers["accept-encoding"] = "identity"
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in headers.items()
        if isinstance(value, str) and not name.startswith(_ACCOUNT_PREFIX)
    ]
