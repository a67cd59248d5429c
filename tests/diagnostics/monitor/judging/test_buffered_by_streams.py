"""A live service without a ledger whose open streams keep all that they have sent: it is told as buffered, and by what."""

from __future__ import annotations

import contextlib
import socket
from typing import Any
from urllib.parse import urlsplit

APP = """
import asyncio
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()

async def body():
    served_chunks = []
    while True:
        served_chunks.append(["row"] * 10_000)
        yield b"data: x\\n\\n"
        await asyncio.sleep(0.1)

@app.get("/stream")
async def stream():
    return StreamingResponse(body())
"""
FAST = {
    "DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.05",
    "DIAGNOSTICS_RECORD_SECONDS": "60",
    "DIAGNOSTICS_LOOKS_PER_HOUR": "6",
}


def test_what_open_streams_keep_until_they_end_is_no_leak_of_objects(observed: Any, http: Any, eventually: Any) -> None:
    """It was "objects are retained": one looked for a container that is never emptied, and each was freed with its stream."""
    service = observed(APP, env=FAST)
    address = urlsplit(service.url)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=60))
            client.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(10)

        def look() -> Any:
            workers = http(f"{service.monitor}/debug/memory/verdict").json()["workers"]
            found = workers[0] if workers else {}
            return found if found.get("confidence") == "high" and found["alarm"] else None

        told = eventually(look, patience=240)
    assert told["verdict"] == "buffering"
    assert told["culprit"].startswith("local 'served_chunks' -> list[")
    assert "3 open streams" in told["says"]
    assert "of body (" in told["says"]
    assert "retained_objects" not in {each["verdict"] for each in told["also"]}
