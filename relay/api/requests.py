"""Checks the fields of a request's JSON that the relay needs, and makes the call to the upstream. bodies.py reads the bytes.

The relay looks at `model`, `stream` and the required fields in protocol/endpoints.py. The upstream gets the bytes as they
came, and validates the rest.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request

from ..admission.keys import CALLER
from ..client.client import until_left
from ..client.reply import Scope
from ..errors import BadRequestError, ShuttingDownError
from ..protocol.endpoints import CHAT, Endpoint
from ..protocol.parameters import parameters_of
from ..stream.call import Call

__all__ = ["MAX_VALUES", "OpenAnswers", "caller", "caller_of", "owner", "prompt_call", "read_call", "retry_field"]

Result = TypeVar("Result")

# JSON values in one body. Each becomes an object of up to a hundred bytes while the body is parsed: 16 MiB of `[],[],` would
# become 400 MiB. A conversation has thousands of values, a prompt of token ids some hundred thousand.
MAX_VALUES: Final = 500_000
_STRINGS: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def caller(request: Request) -> str:
    """The name by which the gate counts this request."""
    return caller_of(request.scope)


def caller_of(scope: Scope) -> str:
    """The name of a scope's caller: that of its key, or the client's address where the relay has no keys.

    Without configured keys a key in the request is ignored: a caller could send another one each time.
    """
    name: str | None = scope.get(CALLER)
    if name is not None:
        return f"key:{name}"
    client = scope.get("client")
    return str(client[0]) if client else ""


def owner(request: Request) -> str:
    """The name by which a kept stream is its caller's: that of its key, "" where the relay has no keys."""
    return str(request.scope.get(CALLER, ""))


class OpenAnswers:
    """The tasks of answers that do not stream: each is cancelled when its client leaves or the relay shuts down."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def unless_left(self, request: Request, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`. Raises ClientDisconnect where the client left, ShuttingDownError at shutdown."""
        task = asyncio.create_task(work)
        watcher = asyncio.create_task(until_left(request.receive))
        self._tasks.add(task)
        try:
            await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientDisconnect
            if task.cancelled():
                raise ShuttingDownError
            return task.result()
        finally:
            self._tasks.discard(task)
            task.cancel()
            watcher.cancel()
            await asyncio.wait({task, watcher})
            # The traceback of the task's exception holds this frame: breaks the reference cycle, with the request in it.
            del task

    def end_all(self) -> None:
        """Cancel all tasks, at shutdown."""
        for task in self._tasks:
            task.cancel()


def read_call(endpoint: Endpoint, body: bytes) -> Call:
    """Make a call to the upstream from the body of a request to `endpoint`. Raises BadRequestError."""
    if _values(body) > MAX_VALUES:
        raise BadRequestError(f"the request body has more than {MAX_VALUES} values")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of opening brackets
        raise BadRequestError(f"the request body is not JSON: {_reason(error)}") from None
    if not isinstance(fields, dict):
        raise BadRequestError(f"the request body must be a JSON object, not {_json_type(fields)}")
    for name, kind in endpoint.required.items():
        _field(fields, name, kind)
    model = _field(fields, "model", str) if fields.get("model") is not None else ""
    if not model and "model" in endpoint.required:
        raise BadRequestError("model is empty", param="model")
    streams = fields.get("stream")
    if streams is not None and not isinstance(streams, bool):
        raise BadRequestError(f"stream must be true or false, not {_json_type(streams)}", param="stream")
    return Call(endpoint, model, bool(streams), body, parameters_of(fields))


def _values(body: bytes) -> int:
    """About how many values the JSON has. Characters within strings are left out only where the count would be too high."""
    values = sum(map(body.count, (b",", b"[", b"{")))
    if values > MAX_VALUES:
        body = _STRINGS.sub(b"", body)
        values = sum(map(body.count, (b",", b"[", b"{")))
    return values


def prompt_call(prompt: str, model: str) -> Call:
    """The streaming chat call for the query of GET /stream."""
    fields = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True}
    return Call(CHAT, model, True, json.dumps(fields).encode())


def retry_field(seconds: float) -> bytes:
    """The SSE `retry` line: after how many seconds an EventSource reconnects; b"" for 0.

    No blank line follows, so that the line belongs to the upstream's first event and is not counted as one of its own.
    """
    return b"retry: %d\n" % round(seconds * 1000) if seconds else b""


def _field(fields: dict[str, Any], name: str, kind: type) -> Any:
    if name not in fields:
        raise BadRequestError(f"{name} is missing", param=name)
    value = fields[name]
    if not isinstance(value, kind):
        expected = "a string" if kind is str else "an array"
        raise BadRequestError(f"{name} must be {expected}, not {_json_type(value)}", param=name)
    return value


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names[type(value)]


def _reason(error: Exception) -> str:
    # Without the text, which is a prompt.
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "not valid UTF-8" if isinstance(error, UnicodeDecodeError) else "a number has too many digits"
