"""Asking a monitor over HTTP, for every command that takes its URL: the address, the token, and what a refusal means."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import httpx2

from ..errors import DiagnosticsError, TargetError, UsageError

__all__ = ["checked", "client_of"]

_TIMEOUT_SECONDS = 30.0


def client_of(url: str) -> httpx2.Client:
    """A client for the monitor's root, from any of its addresses; with DIAGNOSTICS_TOKEN, or the token to read.

    Raises UsageError. Whoever asks for it closes it.
    """
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is not a monitor's address", remedy="write http://127.0.0.1:6060")
    token = os.environ.get("DIAGNOSTICS_TOKEN") or os.environ.get("DIAGNOSTICS_READ_TOKEN")
    headers = {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    base = f"{parts.scheme}://{parts.netloc}"
    return httpx2.Client(base_url=base, headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=False)


def checked(client: httpx2.Client, method: str, path: str, **options: Any) -> httpx2.Response:
    """The answer to one request. Raises TargetError where no monitor answers, and what the monitor refuses with."""
    try:
        response = client.request(method, path, **options)
    except httpx2.TransportError as error:
        raise TargetError(
            f"no monitor answers at {client.base_url}: {error}", remedy="start the service with `diagnostics run`"
        ) from error
    if response.is_success:
        return response
    try:
        told = response.json()["error"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TargetError(f"{client.base_url} answered {response.status_code}, and is no monitor") from error
    # The monitor does not know by which address it is reached: the command that it offers is made whole here.
    base = str(client.base_url).rstrip("/")
    told["remedy"] = str(told.get("remedy", "")).replace("diagnostics capture URL", f"diagnostics capture {base}")
    raise _RefusalError(response.status_code, told)


class _RefusalError(DiagnosticsError):
    """The monitor said no; its words, and the exit code that its status means."""

    def __init__(self, status: int, told: dict[str, Any]) -> None:
        super().__init__(told.get("message", ""), remedy=told.get("remedy", ""), code=told.get("code"))
        self.exit_code = {404: 2, 422: 2, 401: 2, 403: 2, 409: 1, 503: 1, 507: 1}.get(status, 3)  # type: ignore[misc]
