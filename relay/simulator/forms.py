"""The kinds of answers, in one table: an endpoint's path, the fields of its request, the functions that make its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .events import ChatEvents, CompletionEvents, Events, completion, text_completion
from .grammar import Script
from .responses import ResponseEvents, response

__all__ = ["FORMS", "Form"]


@dataclass(frozen=True, slots=True)
class Form:
    """One row.

    prompt     the name of the request's field with the prompt
    types      the types that this field may have
    required   whether this field is required
    options    whether a request may have `stream_options.include_usage`
    events     makes a streamed answer from model, script, ordinal, prompt tokens, include_usage
    whole      makes an answer that does not stream, from the same but the last
    repeats    whether a stream ends with its whole text once more
    """

    prompt: str
    types: tuple[type, ...]
    required: bool
    options: bool
    events: Callable[[str, Script, int, int, bool], Events]
    whole: Callable[[str, Script, int, int], bytes]
    repeats: bool = False


FORMS = {
    "/v1/chat/completions": Form("messages", (list,), True, True, ChatEvents, completion),
    "/v1/completions": Form("prompt", (str, list), False, True, CompletionEvents, text_completion),
    "/v1/responses": Form("input", (str, list), False, False, ResponseEvents, response, repeats=True),
}
