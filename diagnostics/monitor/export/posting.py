"""One POST of a profile: when it is given up, how much of an answer is read, and what the answer means for the profile.

The receiver is a peer: it gets a deadline for the whole exchange, 64 KiB of its answer are read, no redirect is followed, and
what it says is shortened, made printable and freed of our keys before it comes near a log.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, Literal

import httpx2

from ... import __version__
from ...errors import UsageError
from .destination import Destination
from .payload import Payload

__all__ = ["PATIENCE_SECONDS", "Outcome", "Receiver", "retry_after"]

# OTLP's default for an exporter.
PATIENCE_SECONDS: Final = 10.0
_MAX_ANSWER_BYTES: Final = 64 * 1024
_MAX_QUOTED: Final = 200
_MAX_RETRY_AFTER: Final = 300.0
# OTLP names 429, 502, 503 and 504; Pyroscope answers 408 where the body did not come in time, and a proxy 500.
_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_SHORT: Final = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt.

    kind    taken; refused: another attempt would be refused as well; again: it may succeed later
    cause   tells this failure from others: a status, the name of an error
    why     for a reader
    after   seconds for which the receiver wants to be left alone, where it says so
    """

    kind: Literal["taken", "refused", "again"]
    cause: str = ""
    why: str = ""
    after: float | None = None


class Receiver:
    """The receiver at a destination. Keeps its connection; to be closed by `close`."""

    def __init__(
        self, destination: Destination, objection: Callable[[bytes], str | None], patience: float = PATIENCE_SECONDS
    ) -> None:
        self._destination = destination
        self._objection = objection
        self._patience = patience
        self._secrets = _secrets(value for _, value in destination.headers)
        self._client = httpx2.AsyncClient(
            headers={"User-Agent": f"highwater-diagnostics/{__version__}", "Accept-Encoding": "identity"},
            timeout=patience,
            # No proxy and no .netrc of the environment: profiles go where the setting says, with the keys that it says.
            trust_env=False,
            verify=_trusted(destination.url),
            limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=120.0),
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def post(self, payload: Payload) -> Outcome:
        """One attempt. Raises nothing that a receiver can cause."""
        try:
            async with asyncio.timeout(self._patience):
                return await self._posted(payload)
        except TimeoutError:
            return Outcome("again", "time", f"no answer within {self._patience:g} s")
        except httpx2.TimeoutException as error:
            return Outcome("again", "time", f"no answer within {self._patience:g} s ({type(error).__name__})")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, UnicodeError) as error:
            cause = type(error).__name__
            return Outcome("again", cause, self._quoted(str(error)) or cause)

    async def _posted(self, payload: Payload) -> Outcome:
        request = self._client.build_request(
            "POST",
            self._destination.url,
            params=dict(payload.query) or None,
            content=payload.body,
            headers=[*self._destination.headers, *payload.headers, ("Content-Type", payload.content_type)],
        )
        response = await self._client.send(request, stream=True)
        try:
            answer = await _start_of(response.aiter_raw())
        finally:
            await response.aclose()
        return self._meaning(response, answer)

    def _meaning(self, response: httpx2.Response, answer: bytes) -> Outcome:
        status = response.status_code
        if response.is_success:
            if len(answer) > _MAX_ANSWER_BYTES:
                return Outcome("refused", "answer", f"it answered {status} with more than {_MAX_ANSWER_BYTES} bytes")
            objection = self._objection(answer)
            return Outcome("refused", "objection", self._quoted(objection)) if objection else Outcome("taken")
        said = self._quoted(answer[:_MAX_ANSWER_BYTES].decode("utf-8", "replace"))
        why = f"it answered {status}" + (f": {said}" if said else "")
        if status in _AGAIN:
            return Outcome("again", str(status), why, retry_after(response.headers.get("retry-after"), time.time()))
        return Outcome("refused", str(status), why)

    def _quoted(self, text: str) -> str:
        """A peer's words for the log."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = _UNPRINTABLE.sub(" ", text).strip()
        return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."


def retry_after(text: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After (a number of seconds or a date), 5 minutes at most; None where there is none.

    now   wall-clock time
    """
    if not text:
        return None
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), _MAX_RETRY_AFTER)
    try:
        wanted = parsedate_to_datetime(text).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, wanted), _MAX_RETRY_AFTER)


async def _start_of(chunks: AsyncIterator[bytes]) -> bytes:
    """The body; of one that is larger than may be read, so much and one byte more."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            break
    return bytes(body[: _MAX_ANSWER_BYTES + 1])


def _secrets(values: Iterable[str]) -> tuple[str, ...]:
    """What of the headers' values must not be quoted: each as a whole, and its words, as in `Bearer KEY`; the longest first."""
    found = {part for value in values for part in (value, *value.split()) if len(part) >= _SHORT}
    return tuple(sorted(found, key=len, reverse=True))


def _trusted(url: str) -> ssl.SSLContext:
    """Whom to believe: for plain HTTP nobody, which costs no reading of certificates. Raises UsageError."""
    if not url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return httpx2.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"the certificates to check {url} by cannot be read: {error}",
            remedy="set SSL_CERT_FILE or SSL_CERT_DIR to certificates in PEM, or neither",
        ) from error
