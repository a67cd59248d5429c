"""The facts of an answer: its id and model, why it ended, how many tokens it used. Sans-IO.

The facts of a stream are parsed as its bytes are relayed (chat.py, responses.py), those of a whole answer from its JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Protocol

__all__ = [
    "CACHED",
    "CACHE_WRITE",
    "MAX_FINISH_REASONS",
    "REASONING",
    "AnswerFacts",
    "Facts",
    "StreamFacts",
    "answer_facts",
    "count_of",
    "count_within",
    "name_of",
]

# Names in the details of a usage object.
CACHED: Final = "cached_tokens"
CACHE_WRITE: Final = "cache_write_tokens"
REASONING: Final = "reasoning_tokens"

# An answer that does not stream is parsed for its facts up to this size, which blocks the event loop for some milliseconds.
MAX_PARSED_BYTES: Final = 256 * 1024
# A larger count of tokens is ignored: OTLP has 64 bits for it.
_MAX_COUNT: Final = 10**15
# Bounds of what an upstream can put into spans and logs.
_MAX_NAME_CHARACTERS: Final = 256
MAX_FINISH_REASONS: Final = 16


class Facts(Protocol):
    """The facts of one answer; names and counts are None, and reasons are empty, where the upstream did not send them.

    cached_tokens        those of `input_tokens` that the upstream had in its prompt cache
    cache_write_tokens   those that it put there
    reasoning_tokens     those of `output_tokens` that the model spent on reasoning
    """

    @property
    def response_id(self) -> str | None: ...
    @property
    def model(self) -> str | None: ...
    @property
    def finish_reasons(self) -> tuple[str, ...]: ...
    @property
    def input_tokens(self) -> int | None: ...
    @property
    def output_tokens(self) -> int | None: ...
    @property
    def cached_tokens(self) -> int | None: ...
    @property
    def cache_write_tokens(self) -> int | None: ...
    @property
    def reasoning_tokens(self) -> int | None: ...


class StreamFacts(Facts, Protocol):
    """The facts of a stream, parsed from its bytes. `done`: its end marker has come; `failed`: and marks a failure."""

    @property
    def done(self) -> bool: ...
    @property
    def failed(self) -> bool: ...
    def feed(self, chunk: bytes) -> None: ...
    def eof(self) -> None: ...


@dataclass(frozen=True, slots=True)
class AnswerFacts:
    """The facts of an answer that does not stream."""

    response_id: str | None = None
    model: str | None = None
    finish_reasons: tuple[str, ...] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


def answer_facts(content: bytes) -> AnswerFacts:
    """The facts in the JSON of a whole answer, of any endpoint; all unknown where it is no JSON object, or a very large one.

    >>> answer_facts(b'{"id":"c1","model":"m","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":3}}').input_tokens
    3
    """
    if len(content) > MAX_PARSED_BYTES:
        return AnswerFacts()
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):  # RecursionError: thousands of opening brackets
        return AnswerFacts()
    if not isinstance(answer, dict):
        return AnswerFacts()
    usage = answer.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    of_input = "prompt_tokens_details" if "prompt_tokens" in counts else "input_tokens_details"
    of_output = "completion_tokens_details" if "completion_tokens" in counts else "output_tokens_details"
    return AnswerFacts(
        name_of(answer.get("id")),
        name_of(answer.get("model")),
        _reasons(answer),
        count_of(counts.get("prompt_tokens", counts.get("input_tokens"))),
        count_of(counts.get("completion_tokens", counts.get("output_tokens"))),
        count_within(counts, of_input, CACHED),
        count_within(counts, of_input, CACHE_WRITE),
        count_within(counts, of_output, REASONING),
    )


def _reasons(answer: dict[str, Any]) -> tuple[str, ...]:
    choices = answer.get("choices")
    if isinstance(choices, list):
        reasons = [name_of(choice.get("finish_reason")) for choice in choices if isinstance(choice, dict)]
    else:
        details = answer.get("incomplete_details")
        reasons = [name_of(details.get("reason") if isinstance(details, dict) else answer.get("status"))]
    return tuple(filter(None, reasons))[:MAX_FINISH_REASONS]


def name_of(value: object) -> str | None:
    """A name in an upstream's JSON, cut to _MAX_NAME_CHARACTERS; None where the value is none."""
    return value[:_MAX_NAME_CHARACTERS] if isinstance(value, str) and value else None


def count_within(usage: dict[str, Any], details: str, name: str, known: int | None = None) -> int | None:
    """The count `name` in the object `details` of a usage object; `known` where there is none."""
    within = usage.get(details)
    return count_of(within.get(name), known) if isinstance(within, dict) else known


def count_of(value: object, known: int | None = None) -> int | None:
    """A count of tokens in an upstream's JSON; `known` where the value is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT else known
