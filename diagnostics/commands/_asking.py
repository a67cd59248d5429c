"""Requests to a monitor over HTTP, for every command that takes its URL: address, token, errors."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx2

from ..errors import DiagnosticsError, TargetError, UsageError
from ..fleet.answers import json_object, refusal_in

__all__ = ["asked", "checked", "client_of", "streamed"]

_TIMEOUT_SECONDS = 30.0
# A timeline of hours is a few megabytes.
_MAX_ANSWER_BYTES = 64 * 1024 * 1024


_making = threading.Lock()


def _trusted() -> ssl.SSLContext:
    """The TLS context, made once: reading all certificates takes as long as fifty answers, and many threads ask at once."""
    with _making:  # which `cache` does not have
        return _made()


@cache
def _made() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=False)


def client_of(url: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> httpx2.Client:
    """A client for the monitor's root, from any URL of its pages; sends DIAGNOSTICS_TOKEN or DIAGNOSTICS_READ_TOKEN.

    Raises UsageError. The caller must close it.
    """
    token = os.environ.get("DIAGNOSTICS_TOKEN") or os.environ.get("DIAGNOSTICS_READ_TOKEN")
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError("it is no HTTP address")
        return httpx2.Client(
            base_url=f"{parts.scheme}://{parts.netloc}", headers=headers, timeout=timeout_seconds, trust_env=False,
            verify=_trusted(),
        )  # fmt: skip
    except (ValueError, httpx2.InvalidURL) as error:
        raise UsageError(
            f"{url!r} is not a monitor's address: {error}", remedy="write http://127.0.0.1:6060"
        ) from error


def checked(client: httpx2.Client, method: str, path: str, **options: Any) -> httpx2.Response:
    """The complete response to one request. Raises TargetError where no monitor answers, and the error of a refusal."""
    with streamed(client, method, path, **options) as response:
        body = _read(client, response)
    return httpx2.Response(response.status_code, headers=response.headers, content=body)


@contextmanager
def streamed(client: httpx2.Client, method: str, path: str, **options: Any) -> Iterator[httpx2.Response]:
    """As `checked`, with the body unread. Read it by `iter_raw`: a decompressed body has no size limit."""
    try:
        with client.stream(method, path, **options) as response:
            packed = response.headers.get("content-encoding", "identity")
            if packed != "identity":
                raise TargetError(f"{client.base_url} answered in {packed!r}, which it was not asked for")
            if not response.is_success:
                raise _refusal(client, response.status_code, _read(client, response))
            yield response
    except (httpx2.TransportError, UnicodeError) as error:  # UnicodeError: an invalid host name
        raise TargetError(
            f"no monitor answers at {client.base_url}: {error}", remedy="start the service with `diagnostics run`"
        ) from error


def asked(client: httpx2.Client, method: str, path: str, **options: Any) -> dict[str, Any]:
    """The JSON of a `checked` response, without control characters, which a terminal would obey. Raises TargetError."""
    response = checked(client, method, path, **options)
    return json_object(response.content)


def _read(client: httpx2.Client, response: httpx2.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            raise TargetError(f"{client.base_url} sends more than {_MAX_ANSWER_BYTES} bytes, and is no monitor")
    return bytes(body)


def _refusal(client: httpx2.Client, status: int, body: bytes) -> DiagnosticsError:
    said = refusal_in(body)
    if said is None:
        return TargetError(f"{client.base_url} answered {status}, and is no monitor")
    # The monitor does not know the URL by which it is reached: its commands have `URL` in that place.
    base = str(client.base_url).rstrip("/")
    said["remedy"] = said.get("remedy", "").replace("diagnostics capture URL", f"diagnostics capture {base}")
    return _RefusalError(status, said)


class _RefusalError(DiagnosticsError):
    """A refusal by the monitor: its message, and the exit code for its HTTP status."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(error.get("message", ""), remedy=error.get("remedy", ""), code=error.get("code"))
        self.exit_code = {404: 2, 422: 2, 401: 2, 403: 2, 409: 1, 503: 1, 507: 1}.get(status, 3)  # type: ignore[misc]
