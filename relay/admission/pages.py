"""Refuses requests of foreign web pages: a page in a browser on this machine must not spend the operator's upstream key.

A browser sends the requests of any page that it shows, also to 127.0.0.1. Each of three signs is enough to refuse one:

| sign | what it means |
|---|---|
| `Origin` is neither the relay's own nor in RELAY_CORS_ORIGINS | another page's fetch, EventSource or form |
| no `Origin`, `Sec-Fetch-Site` is `cross-site` or `same-site` | another page's link, image or script |
| `Host` is not a name of this relay | the page's own name resolves to the relay's address (DNS rebinding) |

The last one is checked only where there are no client keys: a page without a key gains nothing by rebinding.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

from ..client.outside import answer_error
from ..errors import ApiError, ForeignPageError, HostError
from .keys import OPEN

if TYPE_CHECKING:
    from ..client.reply import Receive, Scope, Send

__all__ = ["Pages", "host_name", "is_local_name"]

_FOREIGN_SITES: Final = frozenset({b"cross-site", b"same-site"})
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9_.-]+))(?::[0-9]{1,5})?")


def host_name(host: str) -> str | None:
    """The name or address in a Host header, in lower case; None where it is neither.

    >>> host_name("LocalHost:8080"), host_name("[::1]:8080"), host_name("[")
    ('localhost', '::1', None)
    """
    match = _HOST.fullmatch(host)
    return (match["v6"] or match["name"]).lower() if match else None


def is_local_name(name: str) -> bool:
    """Whether a host name cannot be rebound by a foreign DNS server: an IP address, or `localhost` (RFC 6761, 6.3).

    >>> is_local_name("10.0.0.7"), is_local_name("app.localhost"), is_local_name("localhost.example.com")
    (True, True, False)
    """
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Pages:
    """Pure ASGI middleware: answers 403 to the requests of foreign pages, but for paths in OPEN.

    origins   of pages whose requests are let in; `*` is all
    hosts     names of the relay besides the local ones; None: `Host` is not checked
    reject    called with `page` or `host` for each refusal
    """

    def __init__(
        self, app: Any, origins: Collection[str], hosts: Collection[str] | None, reject: Callable[[str], None]
    ) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = None if hosts is None else frozenset(hosts)
        self._reject = reject

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            try:
                self._check(scope["scheme"], dict(scope["headers"]))
            except ApiError as error:
                await answer_error(error, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scheme: str, headers: dict[bytes, bytes]) -> None:
        """Raises ForeignPageError and HostError."""
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin:
            if origin != f"{scheme}://{host}" and not self._origins & {origin, "*"}:
                self._reject("page")
                raise ForeignPageError(origin)
        elif headers.get(b"sec-fetch-site") in _FOREIGN_SITES:
            self._reject("page")
            raise ForeignPageError("another site")
        if self._hosts is None:
            return
        name = host_name(host)
        if name is None or not (is_local_name(name) or name in self._hosts):
            self._reject("host")
            raise HostError(host)
