"""The parameters of a request to a model that traces show: numbers and names, no text. Sans-IO.

The names are those of OpenAI's three endpoints, of which a request has its own. A parameter of another type than documented is
left out: the upstream is the one who refuses it. Stop sequences are a caller's text, and are never shown.

https://platform.openai.com/docs/api-reference describes each parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .facts import name_of

__all__ = ["Parameters", "parameters_of"]

Parameters = tuple[tuple[str, str | int | float], ...]

_MAX_INTEGER: Final = 2**63 - 1  # OTLP's


def parameters_of(fields: Mapping[str, Any]) -> Parameters:
    """The parameters in a request's JSON object, by the keys of NAMES in telemetry/names.py, with their values.

    >>> sorted(parameters_of({"model": "m", "temperature": 1, "n": 2, "max_tokens": "many"}))
    [('choice_count', 2), ('temperature', 1.0)]
    """
    found: dict[str, str | int | float] = {}
    for key in fields.keys() & _READERS.keys():
        name, read = _READERS[key]
        value = read(fields[key])
        if value is not None:
            found[name] = value
    return tuple(found.items())


def _integer(value: object) -> int | None:
    is_one = isinstance(value, int) and not isinstance(value, bool) and -_MAX_INTEGER <= value <= _MAX_INTEGER
    return value if is_one else None  # type: ignore[return-value]


def _number(value: object) -> float | None:
    is_one = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _MAX_INTEGER
    return float(value) if is_one else None  # type: ignore[arg-type]


def _choices(value: object) -> int | None:
    count = _integer(value)
    return None if count == 1 else count  # the convention names it where it is not one


def _effort(value: object) -> str | None:
    return name_of(value.get("effort")) if isinstance(value, dict) else None


def _format(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return _OUTPUT_TYPES.get(kind) if isinstance(kind, str) else None


def _text(value: object) -> str | None:
    return _format(value.get("format")) if isinstance(value, dict) else None


def _conversation(value: object) -> str | None:
    return name_of(value.get("id") if isinstance(value, dict) else value)


_OUTPUT_TYPES: Final = {"text": "text", "json_object": "json", "json_schema": "json"}

# A request's field -> the parameter's name, and what makes its value. Each name comes from one field of an endpoint, but for
# the two fields of a chat for its longest answer, which say the same.
_READERS: Final[Mapping[str, tuple[str, Callable[[object], str | int | float | None]]]] = {
    "frequency_penalty": ("frequency_penalty", _number),
    "presence_penalty": ("presence_penalty", _number),
    "temperature": ("temperature", _number),
    "top_p": ("top_p", _number),
    "seed": ("seed", _integer),
    "n": ("choice_count", _choices),
    "max_tokens": ("max_tokens", _integer),
    "max_completion_tokens": ("max_tokens", _integer),
    "max_output_tokens": ("max_tokens", _integer),
    "reasoning_effort": ("reasoning_level", name_of),
    "reasoning": ("reasoning_level", _effort),
    "response_format": ("output_type", _format),
    "text": ("output_type", _text),
    "previous_response_id": ("previous_response", name_of),
    "conversation": ("conversation", _conversation),
}
