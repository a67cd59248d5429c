"""Checks the body of a request for an answer; errors are in OpenAI's shape."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .forms import Form
from .grammar import GrammarError, Script, parse

__all__ = ["AnswerRequest", "SimulatedError", "read_request"]

_MAX_MODEL_CHARACTERS = 512  # the name is in every event
_MAX_COMPLETION_BYTES = 64 * 1024 * 1024  # of an answer that does not stream, and so is in memory whole


class SimulatedError(Exception):
    """An answer with an error status; `to_json()` has the shape that OpenAI's clients read."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code

    def to_json(self) -> bytes:
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A checked request. `prompt_tokens` is an estimate: a token for four characters of the prompt."""

    form: Form
    model: str
    script: Script
    stream: bool
    include_usage: bool
    prompt_tokens: int


def read_request(form: Form, body: bytes, seed: int) -> AnswerRequest:
    """Check the body of a request for an answer of this form; unknown fields are ignored. Raises SimulatedError (400)."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise SimulatedError(400, f"the request body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(fields, dict):
        raise SimulatedError(400, f"the request body must be a JSON object, not {type(fields).__name__}")
    model = _field(fields, "model", str, required=True)
    if len(model) > _MAX_MODEL_CHARACTERS or any("\ud800" <= character <= "\udfff" for character in model):
        raise SimulatedError(
            400, f"model must be valid text of at most {_MAX_MODEL_CHARACTERS} characters", param="model"
        )
    prompt = _field(fields, form.prompt, *form.types, required=form.required)
    stream = bool(_field(fields, "stream", bool))
    options = _field(fields, "stream_options", dict) or {}
    if options and form.options and not stream:
        raise SimulatedError(400, "stream_options is only allowed when stream is true", param="stream_options")
    include_usage = form.options and bool(_field(options, "include_usage", bool))
    try:
        script = parse(model, seed)
    except GrammarError as error:
        raise SimulatedError(400, str(error), param="model", code="invalid_model") from error
    if not stream:
        _check_whole(script)
    elif form.repeats and script.events is not None and script.events * script.size > _MAX_COMPLETION_BYTES:
        raise SimulatedError(
            400, f"a response of more than {_MAX_COMPLETION_BYTES} bytes must be without end", param="model"
        )
    messages = prompt if isinstance(prompt, list) else [prompt]
    prompt_tokens = sum(_characters(message) for message in messages) // 4 + 1
    return AnswerRequest(form, model, script, stream, include_usage, prompt_tokens)


def _field(fields: dict[str, Any], name: str, *kinds: type, required: bool = False) -> Any:
    value = fields.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, kinds):
        actual = "missing" if value is None else f"of type {type(value).__name__}"
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise SimulatedError(400, f"{name} is {actual}, it must be of type {expected}", param=name)
    return value


def _check_whole(script: Script) -> None:
    if script.events is None or script.events * script.size > _MAX_COMPLETION_BYTES:
        raise SimulatedError(
            400, f"an answer of more than {_MAX_COMPLETION_BYTES} bytes needs stream: true", param="model"
        )
    if script.fault is not None and script.fault.kind == "endless":
        raise SimulatedError(400, "the fault endless needs stream: true", param="model")


def _characters(message: object) -> int:
    content = message.get("content") if isinstance(message, dict) else message
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return len(content) if isinstance(content, str) else 0
