"""What people write: FastAPI and the openai client, parsed objects, one chunk after the other."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI

app = FastAPI()
client = AsyncOpenAI(base_url=os.environ["UPSTREAM_BASE_URL"], api_key="unused")


@app.post("/v1/chat/completions")
async def chat(request: Request) -> StreamingResponse:
    body: dict[str, Any] = await request.json()
    body.pop("stream", None)

    async def events() -> AsyncIterator[str]:
        async for chunk in await client.chat.completions.create(stream=True, **body):
            yield f"data: {chunk.model_dump_json()}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
