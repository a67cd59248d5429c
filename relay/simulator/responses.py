"""The bytes of a Responses answer: events with names and sequence numbers; the last ones repeat the whole text.

The order of the events and their JSON are those of https://platform.openai.com/docs/api-reference/responses-streaming:
created, in progress, an item and its part begin, deltas, text, part and item end, completed. There is no `[DONE]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relay.protocol.sse import encode

from .events import CREATED, MARK, Events, around, identity, text_of, to_json
from .grammar import Script

__all__ = ["ResponseEvents", "response"]


class ResponseEvents(Events):
    """All events of one streamed response; see Events. `ordinal`, the answer's number, goes into `id`."""

    __slots__ = ("_after", "_before", "_between", "_model", "_ordinal", "_prompt_tokens", "_script")

    def __init__(self, model: str, script: Script, ordinal: int, prompt_tokens: int, include_usage: bool) -> None:
        # A response always has its usage in its last event.
        del include_usage
        self._model, self._script = model, script
        self._ordinal, self._prompt_tokens = ordinal, prompt_tokens
        response = _response(model, script, ordinal)
        opening = [
            _event("response.created", 0, {"response": response}),
            _event("response.in_progress", 1, {"response": response}),
            _event("response.output_item.added", 2, {"output_index": 0, "item": _item(script, ordinal, None)}),
            _event("response.content_part.added", 3, {**self._place(), "part": _part("")}),
        ]
        delta = _event("response.output_text.delta", _NUMBER, {**self._place(), "delta": MARK, "logprobs": []})
        before, self._after = around(delta)
        self._before, _, self._between = before.partition(str(_NUMBER).encode())
        super().__init__(script, opening, len(_CLOSING), len(delta) + script.size)

    def content(self, start: int, end: int) -> bytes:
        before, between, after = self._before, self._between, self._after
        first = start + len(self._opening)
        return b"".join(
            b"%b%d%b%b%b" % (before, number, between, token, after)
            for number, token in enumerate(self.tokens(start, end), first)
        )

    def closing(self) -> Sequence[bytes]:
        # Made when they are due, since each of them holds the whole text.
        script, ordinal, place = self._script, self._ordinal, self._place()
        text = text_of(script).decode()
        ended: tuple[dict[str, Any], ...] = (
            {**place, "text": text, "logprobs": []},
            {**place, "part": _part(text)},
            {"output_index": 0, "item": _item(script, ordinal, text)},
            {"response": _response(self._model, script, ordinal, self._prompt_tokens, text)},
        )
        assert self.total is not None
        first = self.total - len(_CLOSING)
        return [
            _event(name, first + index, more) for index, (name, more) in enumerate(zip(_CLOSING, ended, strict=True))
        ]

    def _place(self) -> dict[str, Any]:
        return {"item_id": _item_id(self._script, self._ordinal), "output_index": 0, "content_index": 0}


# A placeholder for the sequence number that occurs nowhere else in an event.
_NUMBER = 123454321
_CLOSING = (
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
)


def response(model: str, script: Script, ordinal: int, prompt_tokens: int) -> bytes:
    """The answer of a request that does not stream, as JSON."""
    return to_json(_response(model, script, ordinal, prompt_tokens, text_of(script).decode()))


def _event(name: str, number: int, more: dict[str, Any]) -> bytes:
    return encode(to_json({"type": name, "sequence_number": number, **more}), event=name)


def _item_id(script: Script, ordinal: int) -> str:
    return "msg_" + identity(script, ordinal)


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _item(script: Script, ordinal: int, text: str | None) -> dict[str, Any]:
    """The message in `output`; in progress where `text` is None."""
    return {
        "id": _item_id(script, ordinal),
        "type": "message",
        "status": "in_progress" if text is None else "completed",
        "content": [] if text is None else [_part(text)],
        "role": "assistant",
    }


def _response(
    model: str, script: Script, ordinal: int, prompt_tokens: int = 0, text: str | None = None
) -> dict[str, Any]:
    """The response object; in progress where `text` is None."""
    output_tokens = script.events or 0
    usage = {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt_tokens + output_tokens,
    }
    return {
        "id": "resp_" + identity(script, ordinal),
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress" if text is None else "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": model,
        "output": [] if text is None else [_item(script, ordinal, text)],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None if text is None else usage,
        "user": None,
        "metadata": {},
    }
