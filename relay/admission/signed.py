"""Signed URLs: a GET that carries a key's permission in its query, for clients that can send no header (EventSource).

The law of this file. A signature is HMAC-SHA256, by a secret that all relays share, over everything that it permits: the method
GET, one path, the second in which it expires, and the key that asked for it, by its name and its hash. So it stands for that
key and for nothing more: what the key may do is looked up when the URL is used, and a key that is replaced or removed takes its
URLs with it. Nothing is stored.

    /v1/topics/news?expires=1764000060&key=app&signature=...

Two secrets can be set: the first one signs, both are accepted, so that a secret is replaced without refusing URLs that are out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlencode

from ..errors import SignatureError, UrlExpiredError
from .keys import ClientKey

__all__ = ["LEAST_SECRET", "MOST_SECRETS", "SKEW_SECONDS", "SignedUrl", "Signing", "parse_secrets"]

LEAST_SECRET: Final = 32  # characters
MOST_SECRETS: Final = 2
# The clocks of relays differ: a URL is good for so much longer than it says.
SKEW_SECONDS: Final = 5
# Fields of the query. A client may add others (`last_event_id`, `policy`), which choose among what the path gives.
MOST_FIELDS: Final = 16
_SECONDS: Final = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)


class SignedUrl(NamedTuple):
    """A path with its query, and when it expires, in seconds since 1970."""

    url: str
    expires: int


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """The secrets of RELAY_URL_SECRETS. Raises ValueError, whose message holds none of them."""
    secrets = [part.strip() for part in text.split(",") if part.strip()]
    if not 1 <= len(secrets) <= MOST_SECRETS:
        raise ValueError(
            f"it must be one secret, or two separated by a comma, of which the first one signs; it has {len(secrets)}"
        )
    for secret in secrets:
        if len(secret) < LEAST_SECRET:
            raise ValueError(
                f"a secret must have {LEAST_SECRET} characters at least; `openssl rand -hex 32` prints one"
            )
    return tuple(secret.encode() for secret in secrets)


class Signing:
    """Makes signed URLs and checks them.

    keys      those of the relay
    secrets   the first one signs, all are accepted
    clock     returns seconds since 1970
    """

    def __init__(
        self, keys: Collection[ClientKey], secrets: Sequence[bytes], clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = {key.name: key for key in keys}
        self._secrets = tuple(secrets)
        self._clock = clock

    def sign(self, name: str, path: str, seconds: int) -> SignedUrl:
        """A URL by which anybody may GET `path` for so many seconds, as the key `name` may. Raises as ClientKey.check does."""
        key = self._keys[name]
        key.check("GET", path)
        expires = int(self._clock()) + seconds
        signature = _signature(self._secrets[0], path, str(expires), key)
        return SignedUrl(f"{path}?{urlencode({'expires': expires, 'key': name, 'signature': signature})}", expires)

    def key_of(self, method: str, path: str, query: bytes) -> ClientKey | None:
        """The key whose permission a request's query carries; None where it carries no signature.

        Raises SignatureError where the signature is not of this request, and UrlExpiredError.
        """
        if b"signature=" not in query:
            return None
        try:
            fields = parse_qs(query.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
            (expires,), (name,), (given,) = fields["expires"], fields["key"], fields["signature"]
        except (ValueError, KeyError):  # not ASCII, too many fields, one that is missing or stands twice
            raise SignatureError from None
        key = self._keys.get(name)
        if method != "GET" or key is None or not _SECONDS.fullmatch(expires):
            raise SignatureError
        # Compared with every secret in constant time, against timing attacks.
        matches = [
            hmac.compare_digest(_signature(secret, path, expires, key).encode(), given.encode("utf-8", "replace"))
            for secret in self._secrets
        ]
        if not any(matches):
            raise SignatureError
        if self._clock() >= int(expires) + SKEW_SECONDS:
            raise UrlExpiredError
        return key


def _signature(secret: bytes, path: str, expires: str, key: ClientKey) -> str:
    # JSON keeps the parts apart, whatever is in them; the first one is the version of this list.
    permitted = json.dumps(["highwater signed url 1", "GET", path, expires, key.name, key.sha256])
    digest = hmac.new(secret, permitted.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
