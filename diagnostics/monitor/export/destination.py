"""Where live heaps are pushed to: the settings DIAGNOSTICS_PROFILES_*, checked.

The headers hold keys. No error, log line or repr has one of their values; a URL has no place for a secret, and is refused
where it has one, unquoted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from ...errors import UsageError

__all__ = ["DEFAULT_SECONDS", "LEAST_SECONDS", "MOST_SECONDS", "PATHS", "Destination"]

DEFAULT_SECONDS: Final = 60.0
LEAST_SECONDS: Final = 1.0
MOST_SECONDS: Final = 86_400.0
# Protocol -> the path that a URL without one gets.
PATHS: Final = {"pyroscope": "/ingest", "otlp": "/v1development/profiles"}
# What the OpenTelemetry and Pyroscope SDKs call a service without a name.
_NAMELESS: Final = "unknown_service"
_MAX_NAME: Final = 255
_MAX_HEADERS: Final = 32
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"[\x20-\x7e\t]*")
# These are made of the request itself.
_OURS: Final = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"}
)


@dataclass(frozen=True, slots=True)
class Destination:
    """A receiver of profiles.

    url       the whole address that is posted to
    protocol  pyroscope or otlp
    seconds   from one push of a worker's live heap to the next
    name      of the service
    headers   sent with each push; their values are secret
    """

    url: str
    protocol: str = "pyroscope"
    seconds: float = DEFAULT_SECONDS
    name: str = _NAMELESS
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, *, url: str, protocol: str, seconds: float, name: str, headers: str) -> Destination | None:
        """The destination that these texts of settings describe; None where there is no URL. Raises UsageError."""
        protocol = protocol or "pyroscope"
        if protocol not in PATHS:
            raise UsageError(f"DIAGNOSTICS_PROFILES_PROTOCOL is {protocol!r}", remedy=f"set {' or '.join(PATHS)}")
        if not url:
            return None
        name = name or _NAMELESS
        if len(name) > _MAX_NAME or not name.isprintable():
            raise UsageError(
                f"DIAGNOSTICS_PROFILES_NAME (or OTEL_SERVICE_NAME) is {name[:_MAX_NAME]!r}",
                remedy=f"set a name of at most {_MAX_NAME} characters that can be printed",
            )
        return cls(_url(url, PATHS[protocol]), protocol, seconds, name, _headers(headers))


def _url(text: str, path: str) -> str:
    """The address to post to: `text` with `path`, where it has none of its own."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        said = "is no HTTP address" if "@" in text or "?" in text else f"is {text!r}, which is no HTTP address"
        raise UsageError(
            f"DIAGNOSTICS_PROFILES_URL {said}",
            remedy="set http://HOST:PORT or https://HOST:PORT, with a path or without",
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            "DIAGNOSTICS_PROFILES_URL has a user, a query or a fragment, where keys would be seen",
            remedy="put keys into DIAGNOSTICS_PROFILES_HEADERS, as in Authorization=Bearer%20KEY",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path if parts.path not in ('', '/') else path}"


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    """`NAME=VALUE,NAME=VALUE`, values percent-encoded, as in OTEL_EXPORTER_OTLP_HEADERS."""
    pairs = []
    for number, pair in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        name, equals, encoded = pair.partition("=")
        name, value = name.strip(), unquote(encoded.strip())
        if not equals or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value) or name.lower() in _OURS:
            raise UsageError(
                f"entry {number} of DIAGNOSTICS_PROFILES_HEADERS is no header that can be set",
                remedy="write NAME=VALUE,NAME=VALUE with values percent-encoded: Authorization=Bearer%20KEY",
            )
        pairs.append((name, value))
    if len(pairs) > _MAX_HEADERS:
        raise UsageError(f"DIAGNOSTICS_PROFILES_HEADERS has {len(pairs)} headers", remedy=f"set at most {_MAX_HEADERS}")
    return tuple(pairs)
