"""Where a request goes: an http or https URL taken apart, and the request as it is written on the wire."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from ...errors import TargetError, UsageError

__all__ = ["Address", "Request", "RequestMessage", "read_body", "read_headers"]

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """One URL. `path` carries the query, as a request line does."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Take `url` apart; without a scheme it is http. Raises UsageError."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{url!r} is not a URL: {error}", remedy="write http://127.0.0.1:8080/stream") from error
        if parts.scheme not in _PORTS or not parts.hostname:
            raise UsageError(f"{url!r} is not an http or https URL", remedy="write http://127.0.0.1:8080/stream")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not path.isascii() or not path.isprintable() or " " in path:
            raise UsageError(f"the path {path!r} cannot stand in a request line", remedy="percent-encode it")
        return cls(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], path)

    @property
    def tls(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The Host line's value (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def resolve(self) -> list[tuple[Any, ...]]:
        """Where to connect to, as `socket.getaddrinfo` tells it. Raises TargetError where the host's name is not known."""
        try:
            return list(socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM))
        except OSError as error:
            raise TargetError(
                f"the host {self.host!r} is not known: {error.strerror}", remedy="check the URL"
            ) from error

    def tls_context(self, *, verify: bool) -> ssl.SSLContext | None:
        """For https, with or without a check of the server's certificate; None for http."""
        if not self.tls:
            return None
        context = ssl.create_default_context()
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True)
class RequestMessage:
    """What is asked: method, body, and headers beyond those that every client sends."""

    method: str = "GET"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def encode(self, address: Address, **usual: str) -> bytes:
        """The request's bytes. `usual` headers (with _ for -) give way to those of the same name that the user set."""
        lines = {
            "host": address.authority,
            "accept": "text/event-stream",
            "user-agent": "highwater-diagnostics",
            **{name.replace("_", "-"): value for name, value in usual.items()},
        }
        if self.body:
            lines["content-type"] = "application/json"
        if self.body or self.method not in ("GET", "HEAD", "DELETE"):
            lines["content-length"] = str(len(self.body))
        lines |= {name.lower(): value for name, value in self.headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{self.method} {address.path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + self.body


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a service whose host and port are known later."""

    path: str
    message: RequestMessage = field(default_factory=RequestMessage)

    @classmethod
    def chat(cls, path: str, model: str) -> Request:
        """A streamed chat completion as OpenAI's clients ask for it."""
        question = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Count."}]}
        return cls(path, RequestMessage("POST", json.dumps(question).encode()))


def read_headers(words: Sequence[str]) -> dict[str, str]:
    """Headers from `K:V` words. Raises UsageError for one that is none, or that would break the request."""
    headers = {}
    for word in words:
        name, colon, value = (part.strip() for part in word.partition(":"))
        try:
            word.encode("latin-1")
        except UnicodeEncodeError as error:
            raise UsageError(
                f"--header {word!r} is not Latin-1", remedy="percent-encode or base64 the value"
            ) from error
        if not colon or not name or not word.isprintable() or " " in name:
            raise UsageError(f"--header {word!r} is not NAME:VALUE", remedy="for example --header 'Accept:*/*'")
        headers[name] = value
    return headers


def read_body(path: Path | None) -> bytes:
    """The file's bytes, none for None. Raises UsageError where it cannot be read."""
    if path is None:
        return b""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", remedy="check the path given to --body") from error
