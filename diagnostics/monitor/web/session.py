"""A browser's session: issues and verifies its cookie.

The cookie is `<end>.<HMAC-SHA-256 of that under the token>`: it proves that its bearer once had the token, does not contain
it, expires, and is invalid once the token is changed. No session is stored, so it outlives the monitor's restart.
"""

from __future__ import annotations

import hashlib
import hmac
from http.cookies import CookieError, SimpleCookie

__all__ = ["COOKIE", "SECONDS", "issue", "may_prove", "proves", "value_of"]

COOKIE = "highwater"
SECONDS = 12 * 3600
_PURPOSE = b"highwater session until "


def issue(token: str, now: float) -> str:
    """A cookie's value for a client that has just sent `token`; `now`: wall-clock seconds."""
    end = str(int(now) + SECONDS)
    return f"{end}.{_sign(token, end)}"


def proves(value: str, token: str, now: float) -> bool:
    """Whether `value` was issued for this token and has not expired."""
    if not token or not may_prove(value, now):
        return False
    end, _, signature = value.partition(".")
    return hmac.compare_digest(signature.encode("utf-8", "replace"), _sign(token, end).encode())


def may_prove(value: str, now: float) -> bool:
    """Whether `value` has an end that is not reached, without checking the signature."""
    end = value.partition(".")[0]
    return end.isascii() and end.isdecimal() and len(end) <= 12 and int(end) > now


def value_of(cookies: str) -> str:
    """The session's value in a Cookie header; empty where there is none."""
    try:
        morsel = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _sign(token: str, end: str) -> str:
    return hmac.new(token.encode(), _PURPOSE + end.encode(), hashlib.sha256).hexdigest()
