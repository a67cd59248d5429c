"""The facts of an OpenAI Responses stream, sans-IO: as chat.py, for the streams of POST /v1/responses.

Each event has a name (`event: response.output_text.delta`), and the same name as `type` in its data. There is no `[DONE]`:
the last event is `response.completed`, `response.incomplete` or `response.failed`, and holds the whole response with all of its
text. So an event is recognised by its beginning, and only the beginning and the end of a large event are kept: the id and the
model are at the beginning of a response, its usage near the end.

The format is that of https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from .facts import CACHE_WRITE, CACHED, REASONING, count_of, count_within, name_of
from .sse import CR, LineFeeds

__all__ = ["MAX_HEAD_BYTES", "MAX_TAIL_BYTES", "ResponseFacts"]

# Of one event a stream keeps so much here: a small one whole, the two ends of a large one.
MAX_HEAD_BYTES: Final = 8 * 1024
MAX_TAIL_BYTES: Final = 4 * 1024

# The beginning of an event with facts. Line ends and quotes within a JSON string are escaped, so content cannot look like the
# beginning of an event, or like a key. Some servers write no `event:` line; then `type` is the first key.
_WITH_FACTS: Final = re.compile(
    rb'^(?:event: ?|data: ?\{\s*"type":\s*")response\.(created|completed|incomplete|failed)\b', re.MULTILINE
)
_ID: Final = re.compile(rb'"response":\s*\{\s*"id":\s*"([^"\\]{1,256})"')
_MODEL: Final = re.compile(rb'"model":\s*"([^"\\]{1,256})"')
_REASON: Final = re.compile(rb'"incomplete_details":\s*\{\s*"reason":\s*"([^"\\]{1,256})"')
_USAGE: Final = re.compile(rb'"usage":\s*\{')
_INPUT_TOKENS: Final = re.compile(rb'"input_tokens":\s*(\d{1,15})')
_OUTPUT_TOKENS: Final = re.compile(rb'"output_tokens":\s*(\d{1,15})')
_CACHED_TOKENS: Final = re.compile(rb'"input_tokens_details":\s*\{[^{}]*"cached_tokens":\s*(\d{1,15})')
_CACHE_WRITE: Final = re.compile(rb'"input_tokens_details":\s*\{[^{}]*"cache_write_tokens":\s*(\d{1,15})')
_REASONING_TOKENS: Final = re.compile(rb'"output_tokens_details":\s*\{[^{}]*"reasoning_tokens":\s*(\d{1,15})')
_USAGE_BYTES: Final = 1024


class ResponseFacts:
    """The facts of one stream so far, with the attributes of ChatFacts.

    finish_reasons   the status, or the reason why the response is incomplete
    done             one of the three last events has come
    failed           it was `response.failed`

    >>> facts = ResponseFacts()
    >>> facts.feed(b'event: response.completed\\ndata: {"type":"response.completed","response":{"id":"r1",')
    >>> facts.feed(b'"model":"m","usage":{"input_tokens":3,"output_tokens":5}}}\\n\\n')
    >>> facts.response_id, facts.finish_reasons, facts.output_tokens, facts.done, facts.failed
    ('r1', ('completed',), 5, True, False)
    """

    __slots__ = (
        "_head",
        "_line_feeds",
        "_tail",
        "cache_write_tokens",
        "cached_tokens",
        "done",
        "failed",
        "finish_reasons",
        "input_tokens",
        "model",
        "output_tokens",
        "reasoning_tokens",
        "response_id",
    )

    def __init__(self) -> None:
        self.response_id: str | None = None
        self.model: str | None = None
        self.finish_reasons: tuple[str, ...] = ()
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.cache_write_tokens: int | None = None
        self.reasoning_tokens: int | None = None
        self.done = False
        self.failed = False
        self._line_feeds = LineFeeds()
        self._head = b""  # of the unfinished event
        self._tail = b""  # its last bytes, where the head does not hold all of it

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body, cut anywhere. Never raises, whatever the bytes."""
        if self.done:
            return
        line_feeds = self._line_feeds
        if CR in chunk or line_feeds.bom_seen >= 0 or line_feeds.after_cr:
            chunk = self._line_feeds.feed(chunk)
        if not self._head and chunk.endswith(b"\n\n") and not _WITH_FACTS.search(chunk):
            return  # whole events without facts: nearly all of a stream
        start = 0
        while not self.done:
            end = self._end_of_event(chunk, start)
            if end < 0:
                self._keep(chunk[start:])
                return
            self._keep(chunk[start:end])
            self._look()
            start = end

    def eof(self) -> None:
        """The body has ended: take a last event into account whose blank line the server left out."""
        if not self.done:
            self._look()

    def _end_of_event(self, chunk: bytes, start: int) -> int:
        """The position after the blank line that ends the event; -1 where it is not in this chunk."""
        last = self._tail or self._head
        if start == 0 and last.endswith(b"\n") and chunk.startswith(b"\n"):
            return 1
        position = chunk.find(b"\n\n", start)
        return position + 2 if position >= 0 else -1

    def _keep(self, part: bytes) -> None:
        if not self._head:
            part = part.lstrip(b"\n")
        room = MAX_HEAD_BYTES - len(self._head)
        self._head += part[:room]
        if len(part) > room:
            self._tail = (self._tail + part[room:])[-MAX_TAIL_BYTES:]

    def _look(self) -> None:
        head, tail = self._head, self._tail
        self._head = self._tail = b""
        match = _WITH_FACTS.search(head)
        if match is None:
            return
        name = match[1].decode()
        self._learn(head, tail)
        if name != "created":
            self.done = True
            self.failed = name == "failed"
            self.finish_reasons = self.finish_reasons or (name,)

    def _learn(self, head: bytes, tail: bytes) -> None:
        response = None if tail else _response(head)
        if response is None:
            both = head + b"\n" + tail
            self.response_id = self.response_id or _text(_ID.search(head))
            self.model = self.model or _text(_MODEL.search(head))
            reason = _text(_REASON.search(both))
            usage_at = both.rfind(b'"usage":')
            if _USAGE.match(both, max(usage_at, 0)):
                counts = both[usage_at : usage_at + _USAGE_BYTES]
                self.input_tokens = _number(_INPUT_TOKENS.search(counts), self.input_tokens)
                self.output_tokens = _number(_OUTPUT_TOKENS.search(counts), self.output_tokens)
                self.cached_tokens = _number(_CACHED_TOKENS.search(counts), self.cached_tokens)
                self.cache_write_tokens = _number(_CACHE_WRITE.search(counts), self.cache_write_tokens)
                self.reasoning_tokens = _number(_REASONING_TOKENS.search(counts), self.reasoning_tokens)
        else:
            usage, details = response.get("usage"), response.get("incomplete_details")
            self.response_id = self.response_id or name_of(response.get("id"))
            self.model = self.model or name_of(response.get("model"))
            reason = name_of(details.get("reason")) if isinstance(details, dict) else None
            if isinstance(usage, dict):
                self.input_tokens = count_of(usage.get("input_tokens"), self.input_tokens)
                self.output_tokens = count_of(usage.get("output_tokens"), self.output_tokens)
                self.cached_tokens = count_within(usage, "input_tokens_details", CACHED, self.cached_tokens)
                self.cache_write_tokens = count_within(
                    usage, "input_tokens_details", CACHE_WRITE, self.cache_write_tokens
                )
                self.reasoning_tokens = count_within(usage, "output_tokens_details", REASONING, self.reasoning_tokens)
        if reason:
            self.finish_reasons = (reason,)


def _response(event: bytes) -> dict[str, Any] | None:
    """The response object in an event's data; None where the data has none, or is not JSON."""
    data = b"".join(line[5:] for line in event.split(b"\n") if line.startswith(b"data:"))
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # RecursionError: thousands of opening brackets
        return None
    response = value.get("response") if isinstance(value, dict) else None
    return response if isinstance(response, dict) else None


def _text(match: re.Match[bytes] | None) -> str | None:
    return match[1].decode(errors="replace") if match else None


def _number(match: re.Match[bytes] | None, known: int | None) -> int | None:
    return int(match[1]) if match else known
