"""Access control of the monitor: pure ASGI middleware in front of every route.

Loopback is open to every program on the machine and, through DNS rebinding, to every page in its browser: so the Host must
be a known one, requests by pages of other origins are refused, and a token is required where one is set.
"""

from __future__ import annotations

import base64
import hmac
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..audit import ANYBODY, NOBODY, Asker, Audit
from .session import may_prove, proves, value_of
from .token_guesses import Guesses

__all__ = ["MAX_HEADERS", "Access", "Policy", "asker_of", "may_start"]

_READS = ("GET", "HEAD", "OPTIONS")
# Open without a token, because a browser needs them to log in; neither has data of the service.
_OPEN = ("/debug/memory/login", "/debug/memory/assets/page.css")
_FORM = Path(__file__).parent / "pages" / "login.html"
_FORM_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Vary": "Accept, Cookie",
}
# Browsers send some twenty headers. Ten thousand empty ones fit into the limit of a head's bytes, and take 3 MB as objects.
MAX_HEADERS: Final = 100
_ASKER, _STARTS = "highwater.asker", "highwater.may_start"
# RFC 3986, 3.2.2, without parts that no browser sends: user names, percent-encoding, zones.
_AUTHORITY = re.compile(r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://(?P<authority>[^/?#]{1,300})")


@dataclass(frozen=True)
class Policy:
    """`token` allows everything, `read_token` only reading; where no token is set every client may do everything."""

    hosts: frozenset[str]
    token: str = ""
    read_token: str = ""

    @property
    def tokens(self) -> tuple[str, str]:
        return self.token, self.read_token

    @property
    def named(self) -> dict[str, str]:
        """The tokens that are set, by their names in the audit log."""
        both = {"DIAGNOSTICS_TOKEN": self.token, "DIAGNOSTICS_READ_TOKEN": self.read_token}
        return {name: token for name, token in both.items() if token}

    @classmethod
    def of(cls, host: str, extra_hosts: Iterable[str] = (), token: str = "", read_token: str = "") -> Policy:
        return cls(frozenset({"localhost", "127.0.0.1", "::1", host, *extra_hosts}), token, read_token)


@dataclass(frozen=True)
class _Refusal:
    """A refused request. `why`: the reason, for the audit log; `guess`: whether it had a wrong token."""

    response: Response
    why: str
    who: str = NOBODY
    guess: bool = False


class Access:
    """Answers 421 to an unknown Host, 403 to a page of another origin, 401 without a valid token, 403 without the right.

    A program sends the token with each request; a browser posts it once, in the form that comes with the 401, and has a
    cookie from then on (session.py). Each refusal is written to the audit log.
    """

    def __init__(self, app: ASGIApp, policy: Policy, audit: Audit, guesses: Guesses) -> None:
        self._app = app
        self._policy = policy
        self._audit = audit
        self._guesses = guesses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal, who = self._judged(headers, scope)
        if refusal is None:
            # The only forwarded header that is believed: a wrong one harms its sender only.
            scheme = "https" if headers.get("x-forwarded-proto") == "https" else scope["scheme"]
            added = {"scheme": scheme, _ASKER: _asker(who, scope), _STARTS: _may_start(headers, who)}
            await self._app({**scope, **added}, receive, send)
            return
        facts = {"method": scope["method"], "path": scope["path"], "why": refusal.why}
        self._audit.note("refusal", str(refusal.response.status_code), _asker(refusal.who, scope), **facts)
        if refusal.guess:
            await self._guesses.wait(_end(scope.get("client")))
        await refusal.response(scope, receive, send)

    def _judged(self, headers: Headers, scope: Scope) -> tuple[_Refusal | None, str]:
        policy, method, path = self._policy, scope["method"], scope["path"]
        if len(scope["headers"]) > MAX_HEADERS:
            return _refuse(431, f"{len(scope['headers'])} headers were sent", f"send at most {MAX_HEADERS}"), NOBODY
        given = headers.get("host", "")
        if _host_of(given) not in policy.hosts:
            message = f"the Host {given[:100]!r} is not known here"
            return _refuse(421, message, "add it to DIAGNOSTICS_ALLOWED_HOSTS"), NOBODY
        foreign = _foreign(headers, method, policy)
        if foreign:
            return _refuse(403, foreign, "open the monitor's own page"), NOBODY
        if not policy.named:
            return None, ANYBODY
        if path in _OPEN:
            return None, NOBODY
        who, guess = self._shown(headers)
        if who == "DIAGNOSTICS_TOKEN" or (who != NOBODY and method in _READS):
            return None, who
        if who != NOBODY:
            return _refuse(403, "the read token captures nothing", "use DIAGNOSTICS_TOKEN", who), who
        if method == "GET" and "text/html" in headers.get("accept", ""):
            form = FileResponse(_FORM, 401, headers=_FORM_HEADERS, media_type="text/html")
            return _Refusal(form, "no session", guess=guess), who
        remedy = "send Authorization: Bearer with DIAGNOSTICS_TOKEN"
        refusal = _refuse(401, "the token is wrong" if guess else "a token is needed", remedy, guess=guess)
        return refusal, who

    def _shown(self, headers: Headers) -> tuple[str, bool]:
        """(the name of the valid token in the request, or NOBODY; whether it had a wrong one)."""
        policy = self._policy
        given = headers.get("authorization", "")
        if given:
            shown = _tokens_in(given)
            names = [name for name, token in policy.named.items() if any(_same(each, token) for each in shown)]
            return (names[0], False) if names else (NOBODY, True)
        # Browsers send the cookie to all ports of this host: it is valid only for requests by the monitor's own pages.
        if not _own(headers.get("origin"), headers, otherwise=True):
            return NOBODY, False
        cookie, now = value_of(headers.get("cookie", "")), time.time()
        names = [name for name, token in policy.named.items() if proves(cookie, token, now)]
        # An expired cookie is invalid, but no guess.
        return (names[0], False) if names else (NOBODY, may_prove(cookie, now))


def _may_start(headers: Mapping[str, str], who: str) -> bool:
    """Whether the client has the right to capture, and its GET was not caused by a page of another origin (CSRF).

    A page of any origin can make a browser send a GET, and on loopback no token may be set. So a browser's request must be
    marked as same-origin; and programs are distinguished from browsers by headers that no page can remove or add: those that
    browsers always send, or a bearer token. (Basic does not count: a browser sends a password that was typed into an address.)
    """
    if who not in ("DIAGNOSTICS_TOKEN", ANYBODY):
        return False
    if headers.get("authorization", "").startswith("Bearer "):
        return True
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    # Browsers omit Sec-Fetch-Site where the connection is not secure and its host is not loopback.
    referrer = _origin(headers.get("referer", ""))
    if headers.get("cookie") or headers.get("user-agent", "").startswith("Mozilla/") or referrer:
        return referrer is not None and referrer == headers.get("host")
    return True


def asker_of(scope: Scope) -> Asker:
    """The client of a request that `Access` let through."""
    asker: Asker = scope[_ASKER]
    return asker


def may_start(scope: Scope) -> bool:
    """Whether this GET request may begin a window or a heavy reading; see `_may_start`."""
    return bool(scope[_STARTS])


def _tokens_in(authorization: str) -> list[bytes]:
    """The possible tokens in an Authorization header: that of Bearer; of Basic the user name and the password.

    A program sends Basic for http://user:TOKEN@HOST:PORT or http://TOKEN@HOST:PORT, and `go tool pprof` can send nothing
    else.
    """
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "basic":
        return [given.encode()] if scheme.lower() == "bearer" else [authorization.encode()]
    try:
        return base64.b64decode(given, validate=True).split(b":", 1)
    except ValueError:
        return []


def _same(shown: bytes, token: str) -> bool:
    return hmac.compare_digest(shown, token.encode())


def _foreign(headers: Headers, method: str, policy: Policy) -> str:
    """A sentence that refuses a request by a page of another origin; empty for any other request.

    Following a link from another site is harmless: it only shows our page to a user who may see it.
    """
    origin = headers.get("origin")
    if origin is not None and _host_of(_origin(origin) or "") not in policy.hosts:
        return f"a page of {origin[:100]!r} may not ask here"
    site, mode, target = (headers.get(f"sec-fetch-{name}") for name in ("site", "mode", "dest"))
    if site in ("cross-site", "same-site") and not (method in _READS and mode == "navigate" and target == "document"):
        return f"a page of another origin may not ask here ({site})"
    return ""


def _own(origin: str | None, headers: Mapping[str, str], *, otherwise: bool) -> bool:
    return otherwise if origin is None else _origin(origin) == headers.get("host")


def _origin(text: str) -> str | None:
    """Host and port of an Origin or Referer header; None for any other text."""
    match = _ORIGIN.match(text)
    return match["authority"] if match else None


def _host_of(authority: str) -> str:
    """The host of `host` or `host:port`, in lower case and without brackets; empty for any other text."""
    match = _AUTHORITY.fullmatch(authority)
    return match["host"].strip("[]").lower() if match else ""


def _asker(who: str, scope: Scope) -> Asker:
    return Asker(who, _end(scope.get("client")), _end(scope.get("server")))


def _end(address: Any) -> tuple[str, int] | None:
    return (str(address[0]), int(address[1])) if address and address[1] is not None else None


def _refuse(status: int, message: str, remedy: str, who: str = NOBODY, *, guess: bool = False) -> _Refusal:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {"Connection": "close"} if status == 431 else None
    error = {"code": "refused", "message": message, "remedy": remedy}
    return _Refusal(JSONResponse({"error": error}, status_code=status, headers=headers), message, who, guess)
