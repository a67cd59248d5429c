"""The page at GET /: one stream, shown in a browser by EventSource, and the way to the monitor.

Its script and its style stand in it, and its policy names them by their hashes: nothing else runs or loads, and it connects
to nothing but the relay itself. What a stream says reaches the page as text only.
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
    """Makes responses with the page; `model` is the default of GET /stream, `monitor_url` the monitor's, without a path."""
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
    # Not one response for all: what stands before the routes may add headers of a request to it.
    return lambda: HTMLResponse(text, headers=headers)


def _hash_of(tag: str, text: str) -> str:
    """The source expression for the one element of this kind (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
