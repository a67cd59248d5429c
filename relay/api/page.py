"""The page at GET /: shows one stream in a browser, by EventSource, and links to the monitor.

Its script and style are inline, and its Content-Security-Policy names them by their hashes: nothing else runs or loads, and the
page connects to the relay only. A stream's content is inserted as text only.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path

from starlette.responses import HTMLResponse

__all__ = ["page"]


def page(*, model: str, monitor_url: str | None) -> Callable[[], HTMLResponse]:
    """Returns a function that makes a response with the page.

    model         the default model of GET /stream
    monitor_url   the monitor's address without a path; None: no link
    """
    text = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    values = {
        "model": html.escape(model),
        "monitor": html.escape(f"{monitor_url}/debug/memory") if monitor_url else "",
        "hidden": "" if monitor_url else "hidden",
    }
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    policy = (
        f"default-src 'none'; script-src {_hash_of('script', text)}; style-src {_hash_of('style', text)}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }
    # A new response for each request: middlewares may add headers to it that belong to one request.
    return lambda: HTMLResponse(text, headers=headers)


def _hash_of(tag: str, text: str) -> str:
    """The CSP hash source of the page's only element with this tag (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
