"""The bytes of an answer: OpenAI's exact JSON, made from parts prepared once for each stream, the same for the same seed.

A content event is prefix + token + suffix. The tokens come from a pool that all streams of one seed and token size share, so
that a thousand events are one `bytes.join`, and an open stream holds a few hundred bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from relay.protocol.sse import encode

from .grammar import Script

__all__ = [
    "CREATED",
    "MALFORMED",
    "MARK",
    "ChatEvents",
    "CompletionEvents",
    "Events",
    "around",
    "completion",
    "identity",
    "models",
    "pool",
    "text_completion",
    "text_of",
    "to_json",
    "usage",
]

# The `created` of all answers, which must not depend on the clock: seconds since 1970.
CREATED = 1_760_000_000
# A line with an unknown field, which a reader of SSE must ignore, then an event whose JSON is incomplete.
MALFORMED = b'this line is no field\ndata: {"choices":[{"delta":{"content":"broken\n\n'

# The placeholder for the token, by which an event is split into prefix and suffix.
MARK = "\x7fTOKEN\x7f"

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
# Large tokens repeat a text of about this length.
_SENTENCE_BYTES = 4096
# Tokens in a pool; fewer where they would take more than _POOL_BYTES together.
_POOL_TOKENS = 64
_POOL_BYTES = 256 * 1024
_POOLS = 32


@lru_cache(maxsize=_POOLS)
def pool(seed: int, size: int) -> tuple[bytes, ...]:
    """The tokens of all streams with this seed and token size in bytes."""
    chance = random.Random(f"{seed}/{size}")  # noqa: S311  # text, not secrets
    count = max(1, min(_POOL_TOKENS, _POOL_BYTES // size))
    return tuple(_token(chance, size) for _ in range(count))


def _token(chance: random.Random, size: int) -> bytes:
    """Whole words padded with spaces to exactly `size` bytes, in UTF-8 that needs no escape in JSON."""
    text = bytearray()
    while len(text) < _SENTENCE_BYTES:
        word = chance.choice(_WORDS).encode()
        if len(text) + len(word) > size:
            break
        text += word
    return bytes(text * (size // len(text)) if text else b"").ljust(size)


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def identity(script: Script, ordinal: int) -> str:
    """The random-looking part of an answer's id, made from the seed and the answer's number."""
    return hashlib.sha256(f"{script.seed}/{ordinal}".encode()).hexdigest()[:29]


class Events:
    """All events of one streamed answer, addressed by position: the opening events, the content, the closing events.

    `total` is their number, None for an endless stream; `content_end` is the position after the last content event;
    `event_bytes` the approximate size of a content event. Subclasses make the events of each kind of answer.
    """

    __slots__ = ("_closing_events", "_opening", "_pool", "content_end", "event_bytes", "total")

    def __init__(self, script: Script, opening: Sequence[bytes], closing_events: int, event_bytes: int) -> None:
        self._pool = pool(script.seed, script.size)
        self._opening = opening
        self._closing_events = closing_events
        self.event_bytes = event_bytes
        self.content_end: float = math.inf if script.events is None else len(opening) + script.events
        self.total = None if script.events is None else len(opening) + script.events + closing_events

    def content(self, start: int, end: int) -> bytes:
        """The content events from number `start` to `end` (exclusive); at least one."""
        raise NotImplementedError

    def closing(self) -> Sequence[bytes]:
        """The events after the content."""
        raise NotImplementedError

    def take(self, start: int, end: int) -> bytes:
        """The bytes of the events at the positions `start` to `end` (exclusive), which must exist."""
        opened = len(self._opening)
        parts = [*self._opening[start:end]]
        start = max(start, min(opened, end))
        content_end = end if self.total is None else min(end, self.total - self._closing_events)
        if start < content_end:
            parts.append(self.content(start - opened, content_end - opened))
            start = content_end
        if start < end:
            parts += self.closing()[start - content_end : end - content_end]
        return b"".join(parts)

    def tokens(self, start: int, end: int) -> tuple[bytes, ...]:
        """The texts of the content events from number `start` to `end` (exclusive), as they are in JSON."""
        pool = self._pool
        first = start % len(pool)
        count = end - start
        if first + count <= len(pool):
            return pool[first : first + count]
        return (pool * ((first + count) // len(pool) + 1))[first : first + count]


class ChoiceEvents(Events):
    """The events of answers whose content events differ in their token only: prefix + token + suffix.

    head      the JSON fields that all events have
    choice    makes an entry of `choices` from a token, or from a finish reason without a token
    opening   the entries of `choices` of the opening events
    """

    __slots__ = ("_closing", "_glue", "_prefix", "_suffix")

    def __init__(
        self,
        script: Script,
        head: dict[str, Any],
        choice: Callable[[str | None, str | None], dict[str, Any]],
        opening: Sequence[dict[str, Any]],
        prompt_tokens: int,
        include_usage: bool,
    ) -> None:
        more = {"usage": None} if include_usage else {}

        def event(one: dict[str, Any]) -> bytes:
            return encode(to_json({**head, "choices": [one], **more}))

        self._prefix, self._suffix = around(event(choice(MARK, None)))
        self._glue = self._suffix + self._prefix
        self._closing = [event(choice(None, "stop"))]
        if include_usage:
            counts = usage(prompt_tokens, script.events or 0)
            self._closing.append(encode(to_json({**head, "choices": [], "usage": counts})))
        self._closing.append(encode("[DONE]"))
        super().__init__(script, [event(one) for one in opening], len(self._closing), len(self._glue) + script.size)

    def content(self, start: int, end: int) -> bytes:
        return self._prefix + self._glue.join(self.tokens(start, end)) + self._suffix

    def closing(self) -> Sequence[bytes]:
        return self._closing


class ChatEvents(ChoiceEvents):
    """A chat: the role, content, the finish reason, perhaps usage, `[DONE]`. `ordinal`, the answer's number, goes into `id`."""

    __slots__ = ()

    def __init__(self, model: str, script: Script, ordinal: int, prompt_tokens: int, include_usage: bool) -> None:
        def choice(token: str | None, reason: str | None) -> dict[str, Any]:
            delta = {} if token is None else {"content": token}
            return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}

        head = {
            "id": "chatcmpl-" + identity(script, ordinal),
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": model,
            "service_tier": "default",
            "system_fingerprint": f"fp_sim_{script.seed}",
        }
        role = {"role": "assistant", "content": "", "refusal": None}
        super().__init__(script, head, choice, [{**choice(None, None), "delta": role}], prompt_tokens, include_usage)


class CompletionEvents(ChoiceEvents):
    """A text completion: as a chat, without the role and with `text` for `delta`."""

    __slots__ = ()

    def __init__(self, model: str, script: Script, ordinal: int, prompt_tokens: int, include_usage: bool) -> None:
        def choice(token: str | None, reason: str | None) -> dict[str, Any]:
            return {"text": token or "", "index": 0, "logprobs": None, "finish_reason": reason}

        head = {
            "id": "cmpl-" + identity(script, ordinal),
            "object": "text_completion",
            "created": CREATED,
            "model": model,
            "system_fingerprint": f"fp_sim_{script.seed}",
        }
        super().__init__(script, head, choice, [], prompt_tokens, include_usage)


def around(event: bytes) -> tuple[bytes, bytes]:
    """The bytes before and after MARK in an event."""
    before, _, after = event.rpartition(MARK.encode())
    return before, after


def text_of(script: Script) -> bytes:
    """The whole content of a finite answer."""
    tokens = pool(script.seed, script.size)
    count = script.events or 0
    return b"".join((tokens * (count // len(tokens) + 1))[:count])


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def completion(model: str, script: Script, ordinal: int, prompt_tokens: int) -> bytes:
    """The chat completion of a request that does not stream, as JSON."""
    message = {"role": "assistant", "content": text_of(script).decode(), "refusal": None}
    return to_json(
        {
            "id": "chatcmpl-" + identity(script, ordinal),
            "object": "chat.completion",
            "created": CREATED,
            "model": model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": usage(prompt_tokens, script.events or 0),
            "service_tier": "default",
            "system_fingerprint": f"fp_sim_{script.seed}",
        }
    )


def text_completion(model: str, script: Script, ordinal: int, prompt_tokens: int) -> bytes:
    """The text completion of a request that does not stream, as JSON."""
    choice = {"text": text_of(script).decode(), "index": 0, "logprobs": None, "finish_reason": "stop"}
    return to_json(
        {
            "id": "cmpl-" + identity(script, ordinal),
            "object": "text_completion",
            "created": CREATED,
            "model": model,
            "choices": [choice],
            "usage": usage(prompt_tokens, script.events or 0),
            "system_fingerprint": f"fp_sim_{script.seed}",
        }
    )


def models(names: tuple[str, ...]) -> bytes:
    """The list of models as JSON."""
    rows = [{"id": name, "object": "model", "created": CREATED, "owned_by": "simulator"} for name in names]
    return to_json({"object": "list", "data": rows})
