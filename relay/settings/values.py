"""The types of settings' values, and the checks behind them.

A check takes the value as it was given and returns the one to keep. The message of its ValueError follows the setting's name.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from ..admission.keys import parse_keys
from ..admission.signed import parse_secrets
from ..events.options import parse_properties
from ..memory.buffer import POLICIES
from ..redis_url import parse_redis_url

__all__ = [
    "BaseUrl",
    "BaseUrls",
    "Brokers",
    "Bytes",
    "ClientKeys",
    "KafkaConfig",
    "Limit",
    "Origins",
    "Policies",
    "RedisUrl",
    "Seconds",
    "UrlSecrets",
    "is_loopback",
]


def is_loopback(host: str) -> bool:
    """Whether a socket that listens on `host` is reachable from this machine only; False for names other than localhost."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _base_url(value: str) -> str:
    value = value.rstrip("/")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must be an http or https URL, for example https://api.openai.com/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("it must hold no credentials, query or fragment; the key goes into RELAY_UPSTREAM_API_KEY")
    if not parts.path.endswith("/v1"):
        raise ValueError("it must end in /v1, for example https://api.openai.com/v1")
    return value


def _base_urls(value: str) -> str:
    return ",".join(_base_url(url.strip()) for url in value.split(",") if url.strip())


def _client_keys(value: SecretStr) -> SecretStr:
    if not parse_keys(value.get_secret_value()):
        raise ValueError("it lists no key; leave it unset to let everybody ask")
    return value


def _url_secrets(value: SecretStr) -> SecretStr:
    parse_secrets(value.get_secret_value())
    return value


def _redis_url(value: SecretStr) -> SecretStr:
    parse_redis_url(value.get_secret_value())
    return value


def _brokers(value: str) -> str:
    brokers = [broker.strip() for broker in value.split(",") if broker.strip()]
    for broker in brokers:
        host, _, port = broker.rpartition(":")
        if not host or "/" in broker or "@" in broker or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(
                "each must be HOST:PORT, without a scheme; what else a broker needs goes into RELAY_KAFKA_CONFIG"
            )
    return ",".join(brokers)


def _kafka_config(value: str) -> str:
    try:
        text = Path(value).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"it must name a file that can be read: {reason}") from None
    parse_properties(text)
    return value


def _policies(value: str) -> str:
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names or not set(names) <= set(POLICIES):
        raise ValueError(f"it must be some of {', '.join(POLICIES)}, separated by commas")
    return ",".join(names)


def _origins(value: str) -> str:
    origins = [origin.strip() for origin in value.split(",") if origin.strip()]
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}"):
            raise ValueError("each must be SCHEME://HOST[:PORT] without a path, as browsers send it, or *")
    return ",".join(origins)


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1024)]
# Seconds, or requests a second; 0: no limit.
Limit = Annotated[float, Field(ge=0, allow_inf_nan=False)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
# The plural ones hold several values, separated by commas.
BaseUrls = Annotated[str, AfterValidator(_base_urls)]
Brokers = Annotated[str, AfterValidator(_brokers)]
ClientKeys = Annotated[SecretStr, AfterValidator(_client_keys)]
# A path. The file may hold passwords: its values are in no message.
KafkaConfig = Annotated[str, AfterValidator(_kafka_config)]
Origins = Annotated[str, AfterValidator(_origins)]
Policies = Annotated[str, AfterValidator(_policies)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
UrlSecrets = Annotated[SecretStr, AfterValidator(_url_secrets)]
