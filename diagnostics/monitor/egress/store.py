"""The adapter to obstore: puts, lists and gets objects of one destination. The only file that imports it.

obstore reads the credentials, the endpoint and the server-side encryption from the store's standard environment variables
(`AWS_*`, `GOOGLE_*`, `AZURE_*`). What it says of a failure may repeat them: a store's answer names the access key, an address
may hold a signature. So no word of it is passed on but the status, the store's own error code, and the kind of the failure.

Its own retries are off, because who sends decides when to try again; reading tries twice more. Requests run in obstore's
threads: the event loop only waits for them, and every wait has a deadline.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from ...errors import NotFoundError, TargetError, UsageError
from .destination import Destination

__all__ = ["ObjectStore", "StoreError", "Stored"]

_CONNECT_SECONDS: Final = 5.0
_READ_RETRIES: Final = 2
# Of a multipart upload; S3 takes none smaller. Two at a time, so that a large artifact holds ten megabytes of the monitor.
_PART_BYTES: Final = 5 * 1024 * 1024
_PARTS_AT_ONCE: Final = 2
_CHUNK_BYTES: Final = 1024 * 1024
_EXTRA = "pip install 'highwater-diagnostics[egress]'"

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_KIND = re.compile(r"kind: ([A-Z][A-Za-z]{1,40})")
# Where each store's credentials are looked for when its environment has none: the machine's own metadata service.
_METADATA = ("169.254.169.254", "metadata.google.internal", "169.254.170.2")
_KINDS: Final[dict[str, str]] = {
    "Timeout": "it did not answer in time",
    "TimedOut": "it did not answer in time",
    "Connect": "no connection to it could be made",
    "BadScheme": "its endpoint is http:// and not https://; where that is meant, set AWS_ALLOW_HTTP=true",
    "PermissionDenied": "this user may not write or read there",
    "StorageFull": "its disk is full",
    "ReadOnlyFilesystem": "it is mounted read-only",
    "NotADirectory": "a part of its path is no folder",
}


class StoreError(TargetError):
    """The store refused, did not answer, or cannot be reached."""

    code = "store_failed"


class Stored:
    """An object in a store: its path below the destination, and its bytes."""

    __slots__ = ("bytes", "path")

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self.bytes = size


class ObjectStore:
    """One destination. `timeout`: seconds within which each request must be answered.

    writes   for a sender: a folder is created where there is none, and nothing is tried a second time here
    Raises UsageError where obstore is missing, or cannot use its configuration; NotFoundError where a folder is to be read that
    does not exist.
    """

    def __init__(self, destination: Destination, timeout: float, *, writes: bool) -> None:
        self.destination = destination
        self._timeout = timeout
        try:
            self._obstore: Any = importlib.import_module("obstore")
        except ModuleNotFoundError as error:
            raise UsageError(f"{destination.url} needs the module 'obstore'", remedy=_EXTRA) from error
        # An error of ours is raised from None: the chain would bring obstore's own words into a traceback.
        self._errors: tuple[type[Exception], ...] = (
            OSError, ValueError, importlib.import_module("obstore.exceptions").BaseError
        )  # fmt: skip
        if destination.scheme == "file" and not writes and not Path(destination.prefix).is_dir():
            raise _not_there(destination)
        try:
            self._store = _opened(destination, timeout, writes)
        except self._errors as error:
            raise UsageError(
                f"{destination.url} cannot be used: {_said(error, 'its environment variables are not understood')}",
                remedy="see docs/egress.md for each store's variables",
            ) from None

    async def put(self, path: str, content: bytes | Path, size: int) -> None:
        """Store `content`, of `size` bytes, whole or not at all. Raises StoreError."""
        parts = 1 + size // _PART_BYTES
        try:
            async with asyncio.timeout(self._timeout * (1 + parts)):
                await self._obstore.put_async(
                    self._store, path, content, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
                )
        except TimeoutError:
            raise self._failed("it did not take the file in time") from None
        except self._errors as error:
            raise self._failed(_said(error)) from None

    def list(self, prefix: str, most: int) -> list[Stored]:
        """The objects below a path, "" for all: at most `most`. Raises StoreError."""
        found: list[Stored] = []
        try:
            for chunk in self._obstore.list(self._store, prefix or None, chunk_size=1000):
                found += (Stored(str(each["path"]), int(each["size"])) for each in chunk)
                if len(found) >= most:
                    break
        except self._errors as error:
            raise self._failed(_said(error)) from None
        return found[:most]

    def get(self, path: str) -> Iterator[bytes]:
        """The object at this path, in pieces. Raises NotFoundError, StoreError."""
        try:
            for piece in self._obstore.get(self._store, path).stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(piece)
        except FileNotFoundError:
            raise _not_there(self.destination.below(path)) from None
        except self._errors as error:
            raise self._failed(_said(error)) from None

    def _failed(self, said: str) -> StoreError:
        return StoreError(
            f"{self.destination.url}: {said}", remedy="check the address, the credentials, and what they may do there"
        )


def _not_there(place: Destination) -> NotFoundError:
    return NotFoundError(f"{place.url} is not there", remedy="`diagnostics fetch --list` shows what is")


def _opened(destination: Destination, timeout: float, writes: bool) -> Any:
    stores: Any = importlib.import_module("obstore.store")
    if destination.scheme == "file":
        return stores.LocalStore(destination.prefix, mkdir=writes)
    variables = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}[destination.scheme]
    client = {
        "connect_timeout": timedelta(seconds=min(_CONNECT_SECONDS, timeout)),
        "read_timeout": timedelta(seconds=timeout),
        "timeout": timedelta(seconds=timeout if writes else 3600),
        # Options that are given here stand in place of all that obstore would read from the environment for its HTTP client.
        "allow_http": os.environ.get(f"{variables}_ALLOW_HTTP", "").lower() in ("1", "true"),
    }
    if proxy := os.environ.get(f"{variables}_PROXY_URL"):
        client["proxy_url"] = proxy
    retries = {"max_retries": 0 if writes else _READ_RETRIES, "retry_timeout": timedelta(seconds=3 * timeout)}
    store = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}[destination.scheme]
    return store(destination.bucket, prefix=destination.prefix or None, client_options=client, retry_config=retries)


def _said(error: BaseException, otherwise: str = "it failed") -> str:
    """What failed, in words that cannot hold a credential; `otherwise` where nothing is known."""
    text = str(error)
    if any(address in text for address in _METADATA):
        return "no credentials are in the environment, and the machine's metadata service gave none"
    status, code = _STATUS.search(text), _CODE.search(text)
    if status is not None:
        return f"it answered {status[1]}" + (f" ({code[1]})" if code is not None else "")
    kinds = [kind for kind in _KIND.findall(text) if kind in _KINDS]
    if "BadScheme" in text:
        kinds = ["BadScheme"]
    for word in ("TimedOut", *kinds):
        if word in text:
            return _KINDS[word]
    if type(error).__name__ == "InvalidPathError":
        return "a name in it cannot be read (a control character, an empty segment); name a place below it"
    if "MissingAccount" in text:
        return "no account is named: set AZURE_STORAGE_ACCOUNT_NAME"
    return f"{otherwise} ({type(error).__name__})"
