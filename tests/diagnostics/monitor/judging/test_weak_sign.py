"""A live service without a ledger that leaks while some of its clients do not read: what leaks is named."""

from __future__ import annotations

import contextlib
import socket
from typing import Any
from urllib.parse import urlsplit

APP = """
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()
kept = []

@app.get("/")
def serve():
    kept.append(["row"] * 20_000)
    return {}

async def endless():
    while True:
        yield b"x" * 50_000

@app.get("/stream")
async def stream():
    return StreamingResponse(endless())
"""
FAST = {
    "DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.05",
    "DIAGNOSTICS_RECORD_SECONDS": "60",
    "DIAGNOSTICS_LOOKS_PER_HOUR": "6",
}


def test_clients_that_do_not_read_hide_no_leak(observed: Any, http: Any, eventually: Any) -> None:
    """For seven minutes it said that streams do not read, with low confidence, and took no look at anything."""
    service = observed(APP, env=FAST)
    address = urlsplit(service.url)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=60))
            client.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(10)

        def look() -> Any:
            for _ in range(3):
                http(f"{service.url}/")
            workers = http(f"{service.monitor}/debug/memory/verdict").json()["workers"]
            found = workers[0] if workers else {}
            return found if found.get("confidence") == "high" and found["alarm"] else None

        told = eventually(look, patience=240)
        rows = http(f"{service.monitor}/debug/memory/streams").json()["streams"]
        assert len([row for row in rows if (row["kernel_bytes"] or 0) + (row["transport_bytes"] or 0) > 65_536]) == 3
    assert told["verdict"] == "retained_objects"
    assert "global 'kept' -> list" in told["says"]
