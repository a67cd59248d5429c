"""The kinds of answers, in one table: what is asked, by which field, and the bytes that answer it."""

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

    prompt    the field with the prompt, and its types; `required` tells whether it may be left out
    options   whether there may be `stream_options.include_usage`
    events    makes a streamed answer of model, script, ordinal, prompt tokens, include_usage
    whole     makes one that does not stream, of the same without the last
    repeats   whether a stream ends with the whole text once more
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
