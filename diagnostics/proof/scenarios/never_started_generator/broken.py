"""A relay that registers its streams and has each prompt checked by a guard model before it begins to answer."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import aiohttp
from fastapi import FastAPI, Request, Response

from diagnostics.proof.scenarios.response import EventStream
from diagnostics.proof.scenarios.service import ask, session_of, with_session

GUARD = json.dumps({"model": os.environ["GUARD_MODEL"], "messages": []}).encode()


@dataclass(eq=False)
class Stream:
    """An open stream, with a buffer for bytes that its client has not read yet."""

    buffer: bytearray = field(default_factory=lambda: bytearray(64 * 1024))


open_streams: set[Stream] = set()
app = FastAPI(lifespan=with_session)


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    session, body = session_of(request), await request.body()
    stream = Stream()
    open_streams.add(stream)
    answer = relay(session, body, stream)
    async with ask(session, GUARD) as verdict:
        await verdict.read()
    if await request.is_disconnected():
        # The client has left: save the tokens.
        await answer.aclose()
        return Response(status_code=499)
    return EventStream(answer)


async def relay(session: aiohttp.ClientSession, body: bytes, stream: Stream) -> AsyncGenerator[bytes, None]:
    try:
        async with ask(session, body) as response:
            async for chunk in response.content.iter_any():
                stream.buffer[: len(chunk)] = chunk
                yield chunk
    finally:
        open_streams.discard(stream)
