"""Who may ask the monitor what. Pure ASGI, in front of every route.

Loopback is open to every program on the machine and, through DNS rebinding, to every page in its browser: so the Host
must be one that we know, a request from another page's origin is refused, and a token is asked for where one is set.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .session import proves, value_of

__all__ = ["Access", "Policy"]

_READS = ("GET", "HEAD", "OPTIONS")
# What a browser needs to log in; neither says anything of the service.
_OPEN = ("/debug/memory/login", "/debug/memory/assets/page.css")
_FORM = Path(__file__).parent / "pages" / "login.html"
_FORM_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Vary": "Accept, Cookie",
}


@dataclass(frozen=True)
class Policy:
    """token may do everything; read_token may only read; without a token everybody who gets here may do everything."""

    hosts: frozenset[str]
    token: str = ""
    read_token: str = ""

    @property
    def tokens(self) -> tuple[str, str]:
        return self.token, self.read_token

    @classmethod
    def of(cls, host: str, extra_hosts: Iterable[str] = (), token: str = "", read_token: str = "") -> Policy:
        return cls(frozenset({"localhost", "127.0.0.1", "::1", host, *extra_hosts}), token, read_token)


class Access:
    """Answers 421 to an unknown Host, 403 to a foreign origin, 401 and 403 as the tokens say.

    A program sends the token with each request; a browser shows it once, in the form that it gets with its 401, and has a
    cookie from then on (session.py).
    """

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._refusal(Headers(scope=scope), scope["method"], scope["path"])
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers, method: str, path: str) -> Response | None:
        policy = self._policy
        host = _host_of(headers.get("host", ""))
        if host not in policy.hosts:
            return _refuse(421, f"the Host {host!r} is not known here", "add it to DIAGNOSTICS_ALLOWED_HOSTS")
        origin = headers.get("origin")
        if origin is not None and _host_of(urlsplit(origin).netloc) not in policy.hosts:
            return _refuse(403, f"a page of {origin!r} may not ask here", "open the monitor's own page")
        if (not policy.token and not policy.read_token) or path in _OPEN:
            return None
        may_all, may_read = self._rights(headers)
        if may_all or (may_read and method in _READS):
            return None
        if may_read:
            return _refuse(403, "the read token captures nothing", "use DIAGNOSTICS_TOKEN")
        if method == "GET" and "text/html" in headers.get("accept", ""):
            return FileResponse(_FORM, 401, headers=_FORM_HEADERS, media_type="text/html")
        return _refuse(401, "a token is needed", "send Authorization: Bearer with DIAGNOSTICS_TOKEN")

    def _rights(self, headers: Headers) -> tuple[bool, bool]:
        """(may do everything, may read)."""
        policy = self._policy
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        if given:
            shown = [bool(token) and hmac.compare_digest(given, token.encode()) for token in policy.tokens]
        else:
            # Other ports of this host send the cookie, too: with it, only the monitor's very own page may ask.
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != headers.get("host"):
                return False, False
            cookie, now = value_of(headers.get("cookie", "")), time.time()
            shown = [proves(cookie, token, now) for token in policy.tokens]
        return shown[0], shown[0] or shown[1]


def _host_of(netloc: str) -> str:
    return (urlsplit(f"//{netloc}").hostname or "").lower()


def _refuse(status: int, message: str, remedy: str) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    error = {"code": "refused", "message": message, "remedy": remedy}
    return JSONResponse({"error": error}, status_code=status, headers=headers)
