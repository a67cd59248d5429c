"""FastAPI and httpx2, bytes handed on as they come: no parsing, no instrumentation."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import httpx2
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

UPSTREAM = os.environ["UPSTREAM_BASE_URL"] + "/chat/completions"

app = FastAPI()
client = httpx2.AsyncClient(timeout=None, limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None))


@app.post("/v1/chat/completions")
async def chat(request: Request) -> StreamingResponse:
    body = await request.body()

    async def chunks() -> AsyncIterator[bytes]:
        async with client.stream(
            "POST", UPSTREAM, content=body, headers={"content-type": "application/json"}
        ) as answer:
            async for chunk in answer.aiter_raw():
                yield chunk

    return StreamingResponse(chunks(), media_type="text/event-stream")
