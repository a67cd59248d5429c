"""The endpoints that are relayed, in one table: their paths, the required fields of a request, and the end of a stream.

All differences between them are in this table; the upstream validates the rest of a request.
https://platform.openai.com/docs/api-reference describes each endpoint, its "streaming" page the end of its stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .chat import ChatFacts
from .facts import StreamFacts
from .responses import ResponseFacts

__all__ = ["CHAT", "COMPLETIONS", "ENDPOINTS", "RESPONSES", "Endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row.

    route      the relay's path, which begins with /v1; the upstream's path is the rest, below a base URL that ends in /v1
    operation  the value of gen_ai.operation.name in traces
    required   fields that a request must have, with their JSON types; where `model` is not among them it may be missing
    end        the name of the marker that ends a complete stream, for error messages
    facts      makes the reader of a stream's facts, which also recognises the end marker
    degraded   whether the text of RELAY_DEGRADED_MESSAGE can be sent as an answer of this endpoint
    """

    route: str
    operation: str
    required: dict[str, type]
    end: str
    facts: Callable[[], StreamFacts]
    degraded: bool = False

    @property
    def upstream_path(self) -> str:
        return self.route.removeprefix("/v1")


CHAT: Final = Endpoint(
    "/v1/chat/completions", "chat", {"model": str, "messages": list}, "[DONE]", ChatFacts, degraded=True
)
# The keys, events and end are those of a chat, with `text` for `delta`. The prompt may be missing.
COMPLETIONS: Final = Endpoint("/v1/completions", "text_completion", {"model": str}, "[DONE]", ChatFacts)
# Model and input may both be part of a prompt that the upstream has stored.
RESPONSES: Final = Endpoint("/v1/responses", "chat", {}, "response.completed", ResponseFacts)

ENDPOINTS: Final = (CHAT, COMPLETIONS, RESPONSES)
