"""The answer to a chat while all upstreams are down, where RELAY_DEGRADED_MESSAGE gives its text: an ordinary chat completion.

It is marked by the header `x-relay-degraded: 1`, and the ledger, the span and the log still say `upstream_error`.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Final

from ..protocol.sse import encode

__all__ = ["DEGRADED", "degraded_answer", "degraded_stream"]

DEGRADED: Final = {"x-relay-degraded": "1"}


def degraded_stream(model: str, message: str) -> bytes:
    """The events of a stream that says `message`, `[DONE]` included."""
    head = _head(model, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return encode(_json({**head, "choices": [choice]}))

    beginning = chunk({"role": "assistant", "content": ""}, None) + chunk({"content": message}, None)
    return beginning + chunk({}, "stop") + encode("[DONE]")


def degraded_answer(model: str, message: str) -> bytes:
    """The JSON of an answer that says `message`."""
    reply = {"role": "assistant", "content": message, "refusal": None}
    choice = {"index": 0, "message": reply, "logprobs": None, "finish_reason": "stop"}
    return _json({**_head(model, "chat.completion"), "choices": [choice]})


def _head(model: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
