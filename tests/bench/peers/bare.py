"""The least that Python can do: an ASGI function that hands aiohttp's bytes on. No features, no instrumentation, no errors."""

from __future__ import annotations

import os
from typing import Any

import aiohttp

UPSTREAM = os.environ["UPSTREAM_BASE_URL"] + "/chat/completions"
JSON = {"content-type": "application/json"}
HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]

session: aiohttp.ClientSession | None = None


async def app(scope: Any, receive: Any, send: Any) -> None:
    global session
    if scope["type"] != "http":
        return
    if session is None:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    async with session.post(UPSTREAM, data=body, headers=JSON) as response:
        await send({"type": "http.response.start", "status": response.status, "headers": HEADERS})
        async for chunk in response.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
