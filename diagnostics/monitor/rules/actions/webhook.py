"""One webhook: a POST, and again with growing pauses where it may help. The target is the rule's own; a redirect is not
followed.

An attempt that gets no connection, no answer in time, 408, 429 or 5xx is made again, `attempts` times in all; every other
status but 2xx says that another attempt would get the same. Of an answer only the status and Retry-After are read.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import time
from functools import cache
from typing import TYPE_CHECKING, Final

from ....errors import TargetError
from ..references import key_of, target_of
from ..rule import Webhook
from .messages import SIGNATURE, Facts, body, signature

if TYPE_CHECKING:
    # Loaded with the first webhook: a monitor whose rules have none does without it.
    import httpx2

__all__ = ["post"]

_AGAIN: Final = frozenset({408, 429})
_FIRST_PAUSE_SECONDS: Final = 0.5
# What a receiver may make us wait; the queue is short.
_LONGEST_PAUSE_SECONDS: Final = 30.0


@cache
def _trusted() -> ssl.SSLContext:
    """Made once: reading all certificates takes tens of milliseconds."""
    import httpx2

    return httpx2.create_ssl_context(trust_env=False)


async def post(webhook: Webhook, facts: Facts) -> None:
    """Returns when a receiver has taken it (2xx). Raises TargetError, UsageError where target or key are not there any more.

    No error has the target's path or query, which may be its password.
    """
    import httpx2

    url = httpx2.URL(target_of(webhook, os.environ))
    where = f"{url.scheme}://{url.host}"
    sent = body(facts, webhook.shape)
    # The environment's proxies are not for it: the target is the one that the rule names.
    async with httpx2.AsyncClient(
        follow_redirects=False, trust_env=False, timeout=webhook.timeout, verify=_trusted()
    ) as client:
        said = ""
        for attempt in range(webhook.attempts):
            pause: float | None = _FIRST_PAUSE_SECONDS * 4**attempt
            headers = {"Content-Type": "application/json", "X-Highwater-Delivery": facts.delivery}
            key = key_of(webhook, os.environ)
            if key is not None:
                headers[SIGNATURE] = signature(key, int(time.time()), sent)
            try:
                async with asyncio.timeout(webhook.timeout):
                    status, asked = await _status(client, url, sent, headers)
            except TimeoutError:
                said = f"no answer within {webhook.timeout:g} s"
            except httpx2.TimeoutException:
                said = f"no answer within {webhook.timeout:g} s"
            except (httpx2.TransportError, httpx2.InvalidURL) as error:
                said = f"no connection ({type(error).__name__})"
            else:
                if 200 <= status < 300:
                    return
                said = f"status {status}" + (", a redirect, which is not followed" if 300 <= status < 400 else "")
                pause = (asked or pause) if status in _AGAIN or status >= 500 else None
            if pause is None or attempt == webhook.attempts - 1:
                break
            await _paused(min(pause, _LONGEST_PAUSE_SECONDS) * random.uniform(0.75, 1.0))  # noqa: S311  # no secret
    times = "once" if attempt == 0 else f"{attempt + 1} times"
    raise TargetError(f"{where} was asked {times}: {said}", remedy="look whether the receiver runs, and at its log")


async def _paused(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def _status(
    client: httpx2.AsyncClient, url: httpx2.URL, sent: bytes, headers: dict[str, str]
) -> tuple[int, float | None]:
    """The status of one attempt, and the seconds that Retry-After asks for; the body is not read."""
    async with client.stream("POST", url, content=sent, headers=headers) as response:
        after = response.headers.get("retry-after", "")
        return response.status_code, float(after) if after.isascii() and after.isdecimal() and len(after) < 6 else None
