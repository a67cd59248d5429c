"""Asks many monitors for their overviews at the same time, bounded in number, time and bytes.

A monitor that does not answer is a row that says why; the others are an answer all the same.

No redirect is followed, and no proxy of the environment used: the token goes to the targets and nowhere else.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from functools import cache
from typing import Final

import httpx2

from ..errors import DiagnosticsError, TargetError
from .answers import json_object, refusal_in, row_of
from .replicas import Replica
from .targets import Target

__all__ = ["overviews"]

_AT_ONCE: Final = 16
_EACH_SECONDS: Final = 5.0
_ALL_SECONDS: Final = 15.0
# An overview of a service with dozens of workers is some hundred kilobytes.
_MOST_BYTES: Final = 4 * 1024 * 1024


@cache
def _trusted() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=False)


async def overviews(
    targets: Sequence[Target], token: str, each_seconds: float = _EACH_SECONDS, all_seconds: float = _ALL_SECONDS
) -> list[Replica]:
    """One row for each target, in their order.

    each_seconds   for the whole answer of one monitor; all_seconds: for all of them together
    """
    if not targets:
        return []  # as where no name can be resolved
    turns = asyncio.Semaphore(_AT_ONCE)
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    async with httpx2.AsyncClient(
        headers=headers, timeout=each_seconds, trust_env=False, follow_redirects=False, verify=_trusted()
    ) as client:

        async def one(target: Target) -> Replica:
            async with turns:
                return await _row(client, target, each_seconds)

        asking = [asyncio.create_task(one(target), name=f"ask {target.name}") for target in targets]
        try:
            await asyncio.wait(asking, timeout=all_seconds)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
    late = f"there was no time for it within {all_seconds:g} s for all"
    return [
        Replica(target.name, target.url, error=late) if task.cancelled() else task.result()
        for target, task in zip(targets, asking, strict=True)
    ]


async def _row(client: httpx2.AsyncClient, target: Target, seconds: float) -> Replica:
    try:
        async with asyncio.timeout(seconds):
            body = await _overview(client, target)
        return row_of(target.name, target.url, json_object(body))
    except (TimeoutError, httpx2.TimeoutException):
        error = f"no answer within {seconds:g} s"
    except (httpx2.TransportError, httpx2.InvalidURL, UnicodeError) as failure:  # UnicodeError: an invalid host name
        error = f"no monitor answers at {target.url}: {failure}"
    except DiagnosticsError as failure:
        error = str(failure)
    return Replica(target.name, target.url, error=error)


async def _overview(client: httpx2.AsyncClient, target: Target) -> bytes:
    """The body of its overview. Raises TargetError."""
    async with client.stream("GET", f"{target.url}/debug/memory") as response:
        packed = response.headers.get("content-encoding", "identity")
        if packed != "identity":
            raise TargetError(f"{target.url} answered in {packed[:60]!r}, which it was not asked for")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > _MOST_BYTES:
                raise TargetError(f"{target.url} sends more than {_MOST_BYTES} bytes, and is no monitor")
    if response.is_success:
        return bytes(body)
    said = refusal_in(bytes(body))
    if said is None:
        raise TargetError(f"{target.url} answered {response.status_code}, and is no monitor")
    raise TargetError(said.get("message", ""), remedy=said.get("remedy", ""))
