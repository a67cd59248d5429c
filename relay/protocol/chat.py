"""The facts of an OpenAI chat stream, sans-IO: parsed from the relayed bytes, without keeping chunks or content.

A relay forwards a stream's bytes unchanged, and yet must know which model answered, why it stopped and how many tokens it used.
`ChatFacts` is fed the same bytes. It parses JSON only where it can hold a fact: in the first event, and in events with a finish
reason or a usage object. All others cost a few byte searches.

The format is that of https://platform.openai.com/docs/api-reference/chat-streaming: events with a `chat.completion.chunk` as
data, the usage in an event of its own without choices, and `[DONE]` at the end.
"""

from __future__ import annotations

import json
import re
from typing import Any

from .facts import CACHE_WRITE, CACHED, MAX_FINISH_REASONS, REASONING, count_of, count_within, name_of
from .sse import CR, EventDecoder, LineFeeds

__all__ = ["MAX_LOOKED_AT_BYTES", "ChatFacts"]

# Events with facts have a few hundred bytes; larger ones are content. A stream keeps at most one unfinished event of this size
# here: 16 KiB for each of 1,000 streams is 16 MiB.
MAX_LOOKED_AT_BYTES = 16 * 1024

# Events that are searched for id and model: some gateways begin with ones that have an empty id (content filter results).
_MAX_FIRST_EVENTS = 4

# An end marker, a finish reason, and a count of tokens: see `_has_facts`.
_FACTS = (b"[DONE]", b'"finish_reason":"', b'"finish_reason": "', b'_tokens"')

# The beginning of any kind of token: text, reasoning, a refusal, a tool call.
_CONTENT = re.compile(rb'"(?:content|text|reasoning_content|reasoning|refusal)":\s*"[^"]|"tool_calls":\s*\[\s*\{')


class ChatFacts:
    """The facts of one stream so far; every attribute is final once the stream has ended.

    response_id, model            the upstream's own, None until seen
    finish_reasons                one for each choice, in order of arrival
    input_tokens, output_tokens   None unless the upstream reports usage
    cached_tokens, cache_write_tokens, reasoning_tokens   of them, where it reports details
    saw_content                   the first token has come
    done                          `[DONE]` has come
    malformed                     how many of the parsed events were not JSON objects

    An event of more than MAX_LOOKED_AT_BYTES is not parsed; it counts as content.

    >>> facts = ChatFacts()
    >>> facts.feed(b'data: {"id":"c1","choices":[{"delta":{"content":"Hi"},"finish_reason":"sto')
    >>> facts.feed(b'p"}]}\\n\\ndata: [DONE]\\n\\n')
    >>> facts.response_id, facts.finish_reasons, facts.saw_content, facts.done
    ('c1', ('stop',), True, True)
    """

    __slots__ = (
        "_first_events",
        "_line_feeds",
        "_skipping",
        "_tail",
        "cache_write_tokens",
        "cached_tokens",
        "done",
        "finish_reasons",
        "input_tokens",
        "malformed",
        "model",
        "output_tokens",
        "reasoning_tokens",
        "response_id",
        "saw_content",
    )

    failed = False  # a failed chat has no end marker, but an error

    def __init__(self) -> None:
        self.response_id: str | None = None
        self.model: str | None = None
        self.finish_reasons: tuple[str, ...] = ()
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.cache_write_tokens: int | None = None
        self.reasoning_tokens: int | None = None
        self.saw_content = False
        self.done = False
        self.malformed = 0
        self._first_events = _MAX_FIRST_EVENTS  # still to be parsed for id and model
        self._line_feeds = LineFeeds()
        self._tail = b""  # the unfinished event
        self._skipping = False  # the unfinished event is too large: only its last byte is in `_tail`

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body, cut anywhere. Never raises, whatever the bytes."""
        if self.done:
            return
        line_feeds = self._line_feeds
        if CR in chunk or line_feeds.bom_seen >= 0 or line_feeds.after_cr:
            chunk = self._line_feeds.feed(chunk)
        if self._tail or not chunk.endswith(b"\n\n"):
            chunk = self._complete(chunk)
        if self._first_events or not self.saw_content or _has_facts(chunk):
            self._look(chunk)

    def eof(self) -> None:
        """The body has ended: take a `[DONE]` into account whose blank line the server left out."""
        if self._tail and not self._skipping:
            self.feed(b"\n\n")
        self._tail = b""

    def _complete(self, chunk: bytes) -> bytes:
        """The whole events in the tail and the chunk; the rest becomes the tail."""
        if self._tail:
            chunk = self._tail + chunk
        start = 0
        if self._skipping:
            start = chunk.find(b"\n\n") + 2
            if start < 2:
                self._tail = chunk[-1:]
                return b""
            self._skipping = False
        end = chunk.rfind(b"\n\n", start) + 2
        if end < 2:
            end = start
        self._tail = chunk[end:].lstrip(b"\n")
        if len(self._tail) > MAX_LOOKED_AT_BYTES + 1:  # one more, which may be the first half of a blank line
            self._skipping = True
            self.saw_content = True
            self._tail = self._tail[-1:]
        return chunk[start:end]

    def _look(self, events: bytes) -> None:
        start, size = 0, len(events)
        while start < size and not self.done:
            end = _end_of(events, start)
            if end + 2 < size and self.saw_content and not self._first_events:
                self._look_for_facts(events, start)
                break
            self._look_at(events[start:end].lstrip(b"\n"))
            start = end + 2
        if self.done:
            self._tail = b""

    def _look_for_facts(self, events: bytes, start: int) -> None:
        """Of several events, from `start` on, in which nothing but facts is looked for."""
        for event in _with_facts(events, start):
            self._look_at(event)
            if self.done:
                break

    def _look_at(self, event: bytes) -> None:
        if len(event) > MAX_LOOKED_AT_BYTES:
            self.saw_content = True
        elif self._first_events or _has_facts(event):
            self._read(event)
        if not self.saw_content and not self.done and _CONTENT.search(event):
            self.saw_content = True

    def _read(self, event: bytes) -> None:
        for data in _data_of(event):
            if data.startswith("[DONE]"):
                self.done = True
                return
            if self._first_events:
                self._first_events -= 1
            try:
                chunk = json.loads(data)
            except (ValueError, RecursionError):  # RecursionError: thousands of opening brackets
                chunk = None
            if isinstance(chunk, dict):
                self._learn(chunk)
            else:
                self.malformed += 1

    def _learn(self, chunk: dict[str, Any]) -> None:
        self.response_id = self.response_id or name_of(chunk.get("id"))
        self.model = self.model or name_of(chunk.get("model"))
        if self.response_id:
            self._first_events = 0
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            reason = name_of(choice.get("finish_reason")) if isinstance(choice, dict) else None
            if reason and len(self.finish_reasons) < MAX_FINISH_REASONS:
                self.finish_reasons += (reason,)
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self.input_tokens = count_of(usage.get("prompt_tokens"), self.input_tokens)
            self.output_tokens = count_of(usage.get("completion_tokens"), self.output_tokens)
            self.cached_tokens = count_within(usage, "prompt_tokens_details", CACHED, self.cached_tokens)
            self.cache_write_tokens = count_within(usage, "prompt_tokens_details", CACHE_WRITE, self.cache_write_tokens)
            self.reasoning_tokens = count_within(usage, "completion_tokens_details", REASONING, self.reasoning_tokens)


def _data_of(event: bytes) -> list[str]:
    """The data of one event, whose line ends are LF; none where it has no `data` field."""
    if event.startswith(b"data:") and event.find(b"\n") < 0:  # nearly always
        return [event[5:].removeprefix(b" ").decode(errors="replace")]
    return [decoded.data for decoded in EventDecoder(at_start=False).feed(event + b"\n\n")]


def _end_of(events: bytes, at: int) -> int:
    """Where the event that has the byte at `at` ends, without its blank line."""
    end = events.find(b"\n\n", at)
    return end if end >= 0 else len(events)


def _has_facts(events: bytes) -> bool:
    """Whether there is an end marker, a finish reason (the usual `null` is none) or a count of tokens.

    Quotes within a JSON string are escaped, so content cannot look like a key. JSON comes compact, or with one space after the
    colon, as Python writes it. Searches from the end, where facts are; CPython's rfind is also about three times as fast as its
    find on such text.
    """
    find = events.rfind
    end, reason, spaced_reason, count = _FACTS
    return find(end) >= 0 or find(reason) >= 0 or find(spaced_reason) >= 0 or find(count) >= 0


def _with_facts(events: bytes, start: int) -> list[bytes]:
    """Those of the events from `start` on that have facts, in their order; the others are not even cut out."""
    find, size = events.rfind, len(events)
    end, reason, spaced_reason, count = _FACTS
    found = []
    while (
        at := max(
            find(end, start, size),
            find(reason, start, size),
            find(spaced_reason, start, size),
            find(count, start, size),
        )
    ) >= 0:
        before = find(b"\n\n", start, at)
        size = before + 2 if before >= 0 else start
        found.append(events[size : _end_of(events, at)].lstrip(b"\n"))
    return found[::-1]
