"""POST /debug/memory/login: a browser posts the token once, and gets a cookie, since EventSource cannot send headers.

The form comes with the 401 of any page that a browser requests without a session (access.py).
"""

from __future__ import annotations

import hmac
import time
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ...audit import NOBODY, Asker, Audit
from ..access import Policy, asker_of
from ..session import COOKIE, SECONDS, issue
from ..token_guesses import Guesses
from .page import page

__all__ = ["routes"]

_MAX_BODY_BYTES = 4096


def routes(policy: Policy, audit: Audit, guesses: Guesses) -> list[Route]:
    async def login(request: Request) -> Response:
        given = await _token_in(request)
        asker = asker_of(request.scope)
        for name, token in policy.named.items():
            if hmac.compare_digest(given.encode(), token.encode()):
                audit.note("login", "done", Asker(name, asker.peer, asker.local))
                answer = RedirectResponse("/debug/memory", 303)
                answer.set_cookie(
                    COOKIE, issue(token, time.time()), max_age=SECONDS,
                    httponly=True, samesite="strict", secure=request.url.scheme == "https",
                )  # fmt: skip
                return answer
        audit.note("refusal", "401", Asker(NOBODY, asker.peer, asker.local), why="a wrong token in the login form")
        await guesses.wait(asker.peer)
        return page("login.html", 401)

    return [Route("/debug/memory/login", login, methods=["POST"])]


async def _token_in(request: Request) -> str:
    """The form's field `token`; empty where there is none, or the body is no form."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            return ""
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=5) if body.count(b"&") < 5 else {}
    return fields.get("token", [""])[0]
