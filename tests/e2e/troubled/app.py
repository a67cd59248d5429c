"""Services in the trouble that an alert is about, one path each. Served by uvicorn as `app:ledger`, under `diagnostics run`."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from diagnostics import StreamRecord, instrument

kept: list[bytes] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await receive()
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
    await send(head)
    await send({"type": "http.response.body", "body": b": welcome\n\n", "more_body": True})
    with ledger.stream(scope["path"]) as record:
        await TROUBLES[scope["path"]](record, receive)
    await send({"type": "http.response.body", "body": b""})


async def waits(_: StreamRecord, receive: Any) -> None:
    """No trouble: a stream that is open until its client leaves."""
    await receive()


async def blocks(_: StreamRecord, receive: Any) -> None:
    """Something on the event loop that computes, for a second at a time."""
    gone = asyncio.ensure_future(receive())
    while not gone.done():
        time.sleep(1.0)
        await asyncio.sleep(0.01)


async def keeps(_: StreamRecord, __: Any) -> None:
    """Each stream leaves half a mebibyte behind."""
    kept.append(os.urandom(512 * 1024))


async def buffers(record: StreamRecord, receive: Any) -> None:
    """An upstream that is read, whether the client takes anything or not; up to 160 MiB, for the machine's sake."""
    gone = asyncio.ensure_future(receive())
    queue: list[bytes] = []
    while not gone.done():
        if len(queue) < 160:
            queue.append(os.urandom(1024 * 1024))
            record.hold(len(queue[-1]))
        await asyncio.sleep(0.2)


async def closes_late(record: StreamRecord, receive: Any) -> None:
    """The upstream is read to its end, although the client has left."""
    await receive()
    record.disconnected()
    await asyncio.sleep(4)
    record.upstream_closed()


TROUBLES = {
    "/waits": waits,
    "/blocks": blocks,
    "/keeps": keeps,
    "/buffers": buffers,
    "/closes-late": closes_late,
}
ledger = instrument(app, routes=TROUBLES)
