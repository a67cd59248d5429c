"""The bytes of an answer: OpenAI's exact JSON, made from parts prepared once per stream, the same for the same seed.

A content event is prefix + token + suffix. The tokens come from a pool that all streams of the same seed and size
share, so that a thousand events are one `bytes.join` and a stream in flight holds a few hundred bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from functools import lru_cache
from typing import Any

from relay.sse import encode

from .grammar import Script

__all__ = ["MALFORMED", "ChatEvents", "completion", "models", "text_of", "usage"]

# Answers must not depend on the clock.
CREATED = 1_760_000_000
# A line that is no field, which a reader must ignore, and JSON that breaks off, which it cannot.
MALFORMED = b'this line is no field\ndata: {"choices":[{"delta":{"content":"broken\n\n'

_WORDS = (
    "the ",
    "river ",
    "rises ",
    "by ",
    "night, ",
    "naïve ",
    "and ",
    "water ",
    "finds ",
    "its ",
    "level; ",
    "水位 ",
    "mark ",
)
# Large tokens repeat a text of this length.
_SENTENCE_BYTES = 4096
_POOL_TOKENS = 64
# For large tokens the pool has fewer: what matters then is their size.
_POOL_BYTES = 256 * 1024
_POOLS = 32


@lru_cache(maxsize=_POOLS)
def _pool(seed: int, size: int) -> tuple[bytes, ...]:
    chance = random.Random(f"{seed}/{size}")  # noqa: S311  # text, not secrets
    count = max(1, min(_POOL_TOKENS, _POOL_BYTES // size))
    return tuple(_token(chance, size) for _ in range(count))


def _token(chance: random.Random, size: int) -> bytes:
    """Exactly `size` bytes of whole words, in UTF-8 that needs no escape in JSON; spaces where no word fits."""
    text = bytearray()
    while len(text) < _SENTENCE_BYTES:
        word = chance.choice(_WORDS).encode()
        if len(text) + len(word) > size:
            break
        text += word
    return bytes(text * (size // len(text)) if text else b"").ljust(size)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _identity(script: Script, ordinal: int) -> str:
    return "chatcmpl-" + hashlib.sha256(f"{script.seed}/{ordinal}".encode()).hexdigest()[:29]


class ChatEvents:
    """All events of one streamed answer, addressed by position: role, content, finish reason, perhaps usage, `[DONE]`.

    `total` is their number, None without end; `content_end` is the position after the last content event. `ordinal`
    tells apart the answers of one simulator in `id`.
    """

    __slots__ = ("_closing", "_glue", "_pool", "_prefix", "_role", "_suffix", "content_end", "event_bytes", "total")

    def __init__(self, model: str, script: Script, ordinal: int, prompt_tokens: int, include_usage: bool) -> None:
        head = {
            "id": _identity(script, ordinal),
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": model,
            "service_tier": "default",
            "system_fingerprint": f"fp_sim_{script.seed}",
        }
        more = {"usage": None} if include_usage else {}

        def event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            return encode(_json({**head, "choices": [choice], **more}))

        self._pool = _pool(script.seed, script.size)
        self._prefix, self._suffix = _around(event)
        self._glue = self._suffix + self._prefix
        self._role = event({"role": "assistant", "content": "", "refusal": None})
        self._closing = [event({}, "stop")]
        if include_usage:
            counts = usage(prompt_tokens, script.events or 0)
            self._closing.append(encode(_json({**head, "choices": [], "usage": counts})))
        self._closing.append(encode("[DONE]"))
        self.content_end: float = math.inf if script.events is None else 1 + script.events
        self.total = None if script.events is None else 1 + script.events + len(self._closing)
        self.event_bytes = len(self._glue) + script.size

    def take(self, start: int, end: int) -> bytes:
        """The bytes of the events at the positions `start` to `end` (exclusive), which must exist."""
        parts = []
        if start == 0 < end:
            parts.append(self._role)
            start = 1
        content_end = end if self.total is None else min(end, self.total - len(self._closing))
        if start < content_end:
            parts.append(self._prefix)
            parts.append(self._glue.join(self._tokens(start - 1, content_end - 1)))
            parts.append(self._suffix)
            start = content_end
        if start < end:
            parts += self._closing[start - content_end : end - content_end]
        return b"".join(parts)

    def _tokens(self, start: int, end: int) -> tuple[bytes, ...]:
        pool = self._pool
        first = start % len(pool)
        count = end - start
        if first + count <= len(pool):
            return pool[first : first + count]
        return (pool * ((first + count) // len(pool) + 1))[first : first + count]


def _around(event: Any) -> tuple[bytes, bytes]:
    """What stands before and after the token in a content event."""
    mark = "\x7fTOKEN\x7f"
    before, _, after = event({"content": mark}).rpartition(mark.encode())
    return before, after


def text_of(script: Script) -> bytes:
    """The whole content of a finite answer."""
    pool = _pool(script.seed, script.size)
    count = script.events or 0
    return b"".join((pool * (count // len(pool) + 1))[:count])


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def completion(model: str, script: Script, ordinal: int, prompt_tokens: int) -> bytes:
    """The answer of a request that does not stream, as JSON."""
    message = {"role": "assistant", "content": text_of(script).decode(), "refusal": None}
    return _json(
        {
            "id": _identity(script, ordinal),
            "object": "chat.completion",
            "created": CREATED,
            "model": model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": usage(prompt_tokens, script.events or 0),
            "service_tier": "default",
            "system_fingerprint": f"fp_sim_{script.seed}",
        }
    )


def models(names: tuple[str, ...]) -> bytes:
    """The list of models as JSON."""
    rows = [{"id": name, "object": "model", "created": CREATED, "owned_by": "simulator"} for name in names]
    return _json({"object": "list", "data": rows})
