"""A relay that loads modules and makes tables when they are first needed, which is at its eightieth stream."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator
from functools import cache
from itertools import count

import aiohttp

from diagnostics.proof.scenarios.service import ask, service

FIRST_NEEDED = 80
MODULES = ("sqlite3", "xml.etree.ElementTree", "xmlrpc.client", "email.mime.multipart", "unittest.mock", "zoneinfo")

numbers = count()


@cache
def tables() -> dict[str, int]:
    for name in MODULES:
        importlib.import_module(name)
    return {str(number): number for number in range(20_000)}


async def relay(session: aiohttp.ClientSession, body: bytes) -> AsyncGenerator[bytes, None]:
    if next(numbers) >= FIRST_NEEDED:
        tables()
    async with ask(session, body) as response:
        async for chunk in response.content.iter_any():
            yield chunk


app = service(relay)
