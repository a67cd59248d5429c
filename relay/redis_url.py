"""RELAY_REDIS_URL read: one Redis, or Sentinels that know which Redis is the primary. Imports no Redis client.

    redis://[[USER]:PASSWORD@]HOST:PORT/DB         rediss:// with TLS; unix://PATH
    redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/SERVICE[/DB][?NAME=VALUE&...]

In the second, HOST and PORT are those of the Sentinels, and SERVICE is the name by which they know the primary. USER and
PASSWORD are for Redis; for the Sentinels they are `sentinel_username` and `sentinel_password` behind the question mark. With
`rediss+sentinel://` both are spoken to by TLS. All other names are redis-py's, as in the first form: `ssl_ca_certs=PATH`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

__all__ = ["SentinelUrl", "parse_redis_url"]

PLAIN: Final = ("redis", "rediss", "unix")
SENTINEL: Final = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
SENTINEL_PORT: Final = 26379


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """Where the primary is asked for, and how it is spoken to.

    sentinels   hosts and ports, in the order in which they are asked
    service     the primary's name
    redis       a URL for redis-py with everything about the primary but where it is: the host in it is a Sentinel's
    sentinel    one with everything about the Sentinels, in the same way
    """

    sentinels: tuple[tuple[str, int], ...]
    service: str
    redis: str = field(repr=False)
    sentinel: str = field(repr=False)


def parse_redis_url(url: str) -> SentinelUrl | None:
    """The parts of a URL of Sentinels; None for the URL of one Redis. Raises ValueError, without the URL's secrets."""
    scheme = url.partition("://")[0]
    if scheme in PLAIN:
        return None
    if scheme not in SENTINEL:
        raise ValueError(
            "it must be a URL, redis://HOST:PORT/DB, rediss://... for TLS, unix://PATH, "
            "or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB"
        )
    parts = urlsplit(url)
    credentials, _, places = parts.netloc.rpartition("@")
    sentinels = tuple(_place(place) for place in places.split(","))
    service, _, db = parts.path.lstrip("/").partition("/")
    if not service or not (db or "0").isdecimal():
        raise ValueError("after the Sentinels it must have /SERVICE or /SERVICE/DB, the primary's name and a number")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    own = {name: options.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in options}
    # The host of both is a placeholder: it is replaced before each connection.
    before, start = f"{credentials}@" if credentials else "", SENTINEL[scheme]
    return SentinelUrl(
        sentinels,
        unquote(service),
        f"{start}://{before}localhost/{db or 0}?{urlencode(options)}",
        f"{start}://localhost?{urlencode(options | own)}",
    )


def _place(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ValueError("each Sentinel must be HOST or HOST:PORT, separated by commas")
    return host, port if port is not None else SENTINEL_PORT
