"""Who may ask the monitor what. Pure ASGI, in front of every route.

Loopback is open to every program on the machine and, through DNS rebinding, to every page in its browser: so the Host
must be one that we know, a request from another page's origin is refused, and a token is asked for where one is set.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Access", "Policy"]

_READS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Policy:
    """token may do everything; read_token may only read; without a token everybody who gets here may do everything."""

    hosts: frozenset[str]
    token: str = ""
    read_token: str = ""

    @classmethod
    def of(cls, host: str, extra_hosts: Iterable[str] = (), token: str = "", read_token: str = "") -> Policy:
        return cls(frozenset({"localhost", "127.0.0.1", "::1", host, *extra_hosts}), token, read_token)


class Access:
    """Answers 421 to an unknown Host, 403 to a foreign origin, 401 and 403 as the tokens say."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._refusal(Headers(scope=scope), scope["method"])
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers, method: str) -> JSONResponse | None:
        policy = self._policy
        host = _host_of(headers.get("host", ""))
        if host not in policy.hosts:
            return _refuse(421, f"the Host {host!r} is not known here", "add it to DIAGNOSTICS_ALLOWED_HOSTS")
        origin = headers.get("origin")
        if origin is not None and _host_of(urlsplit(origin).netloc) not in policy.hosts:
            return _refuse(403, f"a page of {origin!r} may not ask here", "open the monitor's own page")
        if not policy.token and not policy.read_token:
            return None
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        if policy.token and hmac.compare_digest(given, policy.token.encode()):
            return None
        if policy.read_token and hmac.compare_digest(given, policy.read_token.encode()):
            if method in _READS:
                return None
            return _refuse(403, "the read token captures nothing", "use DIAGNOSTICS_TOKEN")
        return _refuse(401, "a token is needed", "send Authorization: Bearer with DIAGNOSTICS_TOKEN")


def _host_of(netloc: str) -> str:
    return (urlsplit(f"//{netloc}").hostname or "").lower()


def _refuse(status: int, message: str, remedy: str) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    error = {"code": "refused", "message": message, "remedy": remedy}
    return JSONResponse({"error": error}, status_code=status, headers=headers)
