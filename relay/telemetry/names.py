"""The one table of the names of attributes, metrics and span events.

They are those of the GenAI semantic conventions 0.1.0, all still in development, and of 1.41, the last release in which they
stood among OpenTelemetry's other conventions; those of HTTP's, and the relay's own, which begin with `highwater.`. Times are in
seconds, sizes in bytes. The attributes of spans have the same names in both; OTEL_SEMCONV_STABILITY_OPT_IN chooses between the
metrics (environment.py). https://github.com/open-telemetry/semantic-conventions-genai
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final

from ..stream.ending import Ending

__all__ = ["EVENTS", "EVENT_PREFIX", "MAX_ATTRIBUTE_CHARACTERS", "METRICS", "NAMES", "PROVIDER", "about", "printable"]

# Callers choose the model's name: the bound keeps them from choosing the size of a span.
MAX_ATTRIBUTE_CHARACTERS: Final = 256

NAMES: Final = {
    "operation": "gen_ai.operation.name",
    "provider": "gen_ai.provider.name",
    "request_model": "gen_ai.request.model",
    "request_stream": "gen_ai.request.stream",
    "conversation": "gen_ai.conversation.id",
    "output_type": "gen_ai.output.type",
    "choice_count": "gen_ai.request.choice.count",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "max_tokens": "gen_ai.request.max_tokens",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "previous_response": "gen_ai.request.previous_response.id",
    "reasoning_level": "gen_ai.request.reasoning.level",
    "seed": "gen_ai.request.seed",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "response_id": "gen_ai.response.id",
    "response_model": "gen_ai.response.model",
    "finish_reasons": "gen_ai.response.finish_reasons",
    "first_chunk": "gen_ai.response.time_to_first_chunk",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_write.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "token_type": "gen_ai.token.type",
    "token_modality": "gen_ai.token.modality",
    "server_address": "server.address",
    "server_port": "server.port",
    "error_type": "error.type",
    "status": "http.response.status_code",
    "route": "http.route",
    "outcome": "highwater.stream.outcome",  # the ledger's word for how the stream ended
    "duration": "highwater.stream.duration",
    "first_event": "highwater.stream.time_to_first_event",
    "blocked": "highwater.stream.blocked_seconds",
    "high_water": "highwater.stream.buffer_high_water",
    "bytes_in": "highwater.stream.bytes_in",
    "bytes_out": "highwater.stream.bytes_out",
    "events_in": "highwater.stream.events_in",
    "events_out": "highwater.stream.events_out",
    "dropped_events": "highwater.stream.dropped_events",
    "paused_count": "highwater.stream.pauses",
    "heartbeat_count": "highwater.stream.heartbeats",
    "reason": "highwater.rejected.reason",
}
PROVIDER: Final = "openai"  # the protocol of the upstream; its host is in server.address

METRICS: Final = {
    "duration": "gen_ai.client.operation.duration",
    "first_chunk": "gen_ai.client.operation.time_to_first_chunk",
    "per_chunk": "gen_ai.client.operation.time_per_output_chunk",
    "tokens": "gen_ai.client.token.usage",
    "inference_duration": "gen_ai.client.inference.duration",
    "inference_first_chunk": "gen_ai.client.inference.time_to_first_chunk",
    "inference_per_chunk": "gen_ai.client.inference.time_per_output_chunk",
    "inference_input": "gen_ai.client.inference.operation.input_tokens",
    "inference_output": "gen_ai.client.inference.operation.output_tokens",
    "used_input": "gen_ai.client.inference.usage.input_tokens",
    "used_output": "gen_ai.client.inference.usage.output_tokens",
    "used_cached": "gen_ai.client.inference.usage.cache_read.input_tokens",
    "used_cache_write": "gen_ai.client.inference.usage.cache_write.input_tokens",
    "used_reasoning": "gen_ai.client.inference.usage.reasoning.output_tokens",
    "http_active": "http.server.active_requests",
    "http_duration": "http.server.request.duration",
}

# The events of a CLIENT span.
EVENT_PREFIX: Final = "highwater.stream."
EVENTS: Final = (
    "first_chunk",
    "paused",  # the client has taken little or nothing since the sweep before; see call.py
    "resumed",
    "heartbeat",  # neither the upstream nor the relay had sent a byte for RELAY_HEARTBEAT_SECONDS
    "upstream_skipped",  # its circuit breaker is open
    "upstream_failed",  # an outage, before the first byte of an answer
    "breaker_opened",  # by that failure
    "fallback",  # the request is sent to the next upstream
    "close",
)

# The facts of an Ending that become attributes of the CLIENT span.
_ATTRIBUTES: Final = (
    "outcome",
    "error_type",
    "status",
    "route",
    "duration",
    "first_event",
    "blocked",
    "high_water",
    "bytes_in",
    "bytes_out",
    "events_in",
    "events_out",
    "dropped_events",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


_KEYS: Final = tuple(NAMES[field] for field in _ATTRIBUTES)
_values: Final = attrgetter(*_ATTRIBUTES)


def about(ending: Ending) -> dict[str, Any]:
    """The attributes of an ending; unknown facts are left out."""
    return {name: value for name, value in zip(_KEYS, _values(ending), strict=True) if value is not None}


def printable(text: str) -> str:
    """Text that UTF-8 can encode (JSON may hold half a surrogate pair), cut to MAX_ATTRIBUTE_CHARACTERS."""
    return text[:MAX_ATTRIBUTE_CHARACTERS].encode(errors="replace").decode()
