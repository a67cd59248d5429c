"""Client keys: which callers may use the relay, and for what. Where no key is set, everybody who reaches the relay may.

RELAY_CLIENT_KEYS lists them as `name:scope+scope:sha256`, separated by commas; the relay never has the keys themselves, only
their SHA-256 (`relay hash-key`). A fast hash is enough for keys with the entropy of 32 random bytes, and for no others. A
request carries its key as `Authorization: Bearer KEY`; the key goes no further than this file, and the rest of the relay knows
a caller by its name.

| scope | allows |
|---|---|
| `generate` | the POST endpoints, `GET /stream`, and the rest of their streams (`GET /v1/streams/{id}`) |
| `models` | `GET /v1/models` |
| `subscribe` | `GET /v1/topics/{topic}` |
| `publish` | `POST /v1/topics/{topic}` |

`subscribe` and `publish` are for all topics; `subscribe=news+subscribe=chat.*` is for some (rights.py). What a key may not do
is refused by the topic's name alone, before anybody looks whether there is such a topic.

Instead of its key a GET may carry a signed URL (signed.py), which stands for the key that asked for it.

A path that is not in `NEEDED` still needs a key, of any scope: a route that was forgotten here is closed, not open.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..client.outside import answer_error
from ..errors import ApiError, ForbiddenError, TopicForbiddenError, UnauthorizedError
from ..protocol.endpoints import ENDPOINTS
from .rights import TopicRights

if TYPE_CHECKING:
    from ..client.reply import Receive, Scope, Send

__all__ = [
    "CALLER",
    "NEEDED",
    "OPEN",
    "SCOPES",
    "STREAMS",
    "TOPICS",
    "ClientKey",
    "Keys",
    "SignedUrls",
    "hash_of",
    "parse_keys",
]

# The key of the caller's name in the ASGI scope.
CALLER: Final = "relay.caller"

NEEDED: Final = {
    **{endpoint.route: "generate" for endpoint in ENDPOINTS},
    "/stream": "generate",
    "/v1/models": "models",
}
# The prefixes of the paths by which a client gets the rest of a stream.
STREAMS: Final = ("/v1/streams/", "/v1/responses/")
TOPICS: Final = "/v1/topics/"
TOPICS_NEEDED: Final = {"POST": "publish"}  # all other methods need SUBSCRIBE
SUBSCRIBE: Final = "subscribe"
OF_TOPICS: Final = frozenset({*TOPICS_NEEDED.values(), SUBSCRIBE})
SCOPES: Final = frozenset({*NEEDED.values(), *OF_TOPICS})
# Open without a key: the static page, and the probes.
OPEN: Final = frozenset({"/", "/healthz", "/readyz"})

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ClientKey:
    """One key: its owner's name, what it allows, and its SHA-256 in hexadecimal.

    topics   by scope, the topics that it is for; all topics for a scope that is not in it
    """

    name: str
    scopes: frozenset[str]
    sha256: str
    topics: Mapping[str, TopicRights] = field(default_factory=dict)

    def check(self, method: str, path: str) -> None:
        """Raise ForbiddenError or TopicForbiddenError where this key does not allow such a request."""
        needed = _needed(method, path)
        if needed is None:
            return
        if needed not in self.scopes:
            raise ForbiddenError(self.name, needed)
        rights = self.topics.get(needed)
        if rights is not None and not rights.allow(path.removeprefix(TOPICS)):
            raise TopicForbiddenError(self.name, needed)


def hash_of(key: bytes) -> str:
    """The SHA-256 of a key, in hexadecimal, as RELAY_CLIENT_KEYS lists it."""
    return hashlib.sha256(key).hexdigest()


def parse_keys(text: str) -> tuple[ClientKey, ...]:
    """The keys that RELAY_CLIENT_KEYS lists. Raises ValueError, whose message holds names and scopes, never a hash.

    >>> [(key.name, sorted(key.scopes)) for key in parse_keys("ci:generate+models:" + 64 * "0")]
    [('ci', ['generate', 'models'])]
    """
    keys: dict[str, ClientKey] = {}
    for number, entry in enumerate(filter(None, (part.strip() for part in text.split(","))), 1):
        name, _, rest = entry.partition(":")
        scopes, _, sha256 = rest.partition(":")
        if not _NAME.fullmatch(name) or not rest:
            # The message does not quote the name: if it was left out, the key stands in its place.
            raise ValueError(f"entry {number} must be NAME:SCOPE+SCOPE:SHA256, a name of letters, digits, _ . -")
        if name in keys:
            raise ValueError(f"the name {name!r} stands twice")
        scope_names, topics = _scopes_of(name, scopes)
        if not _HASH.fullmatch(sha256):
            raise ValueError(f"the hash of {name!r} must be 64 hexadecimal digits; `relay hash-key` prints it")
        keys[name] = ClientKey(name, scope_names, sha256, topics)
    return tuple(keys.values())


def _scopes_of(name: str, text: str) -> tuple[frozenset[str], dict[str, TopicRights]]:
    """The scopes of the key `name`, and the topics that they are for where they name some. Raises ValueError."""
    scopes: set[str] = set()
    patterns: dict[str, list[str]] = {}
    bare: set[str] = set()
    for word in text.split("+"):
        scope, names_topics, pattern = word.partition("=")
        if scope not in SCOPES:
            raise ValueError(f"the scopes of {name!r} must be some of {', '.join(sorted(SCOPES))}, joined by +")
        scopes.add(scope)
        if not names_topics:
            bare.add(scope)
        elif scope in OF_TOPICS:
            patterns.setdefault(scope, []).append(pattern)
        else:
            raise ValueError(
                f"the scope {scope!r} of {name!r} cannot name topics, only {' and '.join(sorted(OF_TOPICS))} can"
            )
    both = bare & patterns.keys()
    if both:
        raise ValueError(f"the scope {min(both)!r} of {name!r} stands with topics and without, which is for all topics")
    try:
        return frozenset(scopes), {scope: TopicRights.of(found) for scope, found in patterns.items()}
    except ValueError as error:
        raise ValueError(f"the topics of {name!r}: {error}") from None


class SignedUrls(Protocol):
    """What signed URLs are checked by (signed.py)."""

    def key_of(self, method: str, path: str, query: bytes) -> ClientKey | None:
        """The key that a request's query stands for; None where it has no signature. Raises ApiError."""


class Keys:
    """Pure ASGI middleware: answers 401 without a valid key, 403 without its scope, and puts the caller's name into the scope.

    reject   called with `key` or `scope` for each refusal
    signed   None where no URL is signed
    """

    def __init__(
        self, app: Any, keys: Collection[ClientKey], reject: Callable[[str], None], signed: SignedUrls | None = None
    ) -> None:
        self._app = app
        self._keys = tuple(keys)
        self._reject = reject
        self._signed = signed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        try:
            scope[CALLER] = self._admit(scope["method"], scope["path"], dict(scope["headers"]), scope["query_string"])
        except ApiError as error:
            await answer_error(error, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, method: str, path: str, headers: Mapping[bytes, bytes], query: bytes) -> str:
        """The caller's name. Raises ApiError."""
        try:
            key = self._key_of(method, path, headers, query)
        except ApiError:
            self._reject("key")
            raise
        if key is None:
            self._reject("key")
            raise UnauthorizedError
        try:
            key.check(method, path)
        except ApiError:
            self._reject("scope")
            raise
        return key.name

    def _key_of(self, method: str, path: str, headers: Mapping[bytes, bytes], query: bytes) -> ClientKey | None:
        """The key that a request carries, by its header or by a signed URL. Raises SignatureError and UrlExpiredError."""
        if b"authorization" in headers:
            scheme, _, token = headers[b"authorization"].partition(b" ")
            return self._find(token.strip()) if scheme.lower() == b"bearer" else None
        return self._signed.key_of(method, path, query) if self._signed is not None else None

    def _find(self, token: bytes) -> ClientKey | None:
        """The configured key that the given one matches. Compares with every key in constant time, against timing attacks."""
        sha256 = hash_of(token)
        match = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, sha256):
                match = key
        return match


def _needed(method: str, path: str) -> str | None:
    """The scope that a request needs; None where any key will do."""
    if path.startswith(TOPICS):
        return TOPICS_NEEDED.get(method, SUBSCRIBE)
    if path.startswith(STREAMS):
        return "generate"
    return NEEDED.get(path)
