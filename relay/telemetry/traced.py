"""Telemetry with OpenTelemetry: the implementation of the interface in off.py."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import NoOpTracer, SpanKind, set_span_in_context
from opentelemetry.util.types import AttributeValue

from ..stream.ending import Ending, log_ending
from .call import CallSpan, ids_of
from .deferred import DeferredTracer
from .log_export import OtlpHandler
from .loop_turns import LoopTurns
from .metrics.genai import Operation, Recorder
from .metrics.http import HttpMetrics
from .names import NAMES, PROVIDER, printable
from .off import Telemetry
from .providers import Providers
from .server import Request, Requests, current_server_span, traced_app

if TYPE_CHECKING:
    from ..client.reply import Scope
    from ..stream.call import Call, Span

__all__ = ["Traced"]

MAX_NAME_CHARACTERS: Final = 128
# Kinds of calls that are remembered, with names of at most MAX_ATTRIBUTE_CHARACTERS each.
MAX_KINDS: Final = 64

_Kind = tuple[str, str, tuple[str, int], bool]  # operation, model, the upstream's address, and whether it streams


class Traced(Telemetry):
    """Spans, metrics and log records of the relay's requests, for those signals that `providers` has."""

    def __init__(self, providers: Providers, routes: Collection[str]) -> None:
        self._providers = providers
        self._turns = LoopTurns()
        self._kinds: dict[_Kind, tuple[str, dict[str, AttributeValue]]] = {}
        # Without traces, NoOpTracer's spans carry the caller's context: for exemplars, log lines, and the upstream's spans.
        self._tracer = DeferredTracer(providers.traces, "highwater.relay") if providers.traces else NoOpTracer()
        http = HttpMetrics(*providers.metrics) if providers.metrics else None
        self._requests = Requests(routes, self._tracer, http, self._turns)
        self._recorder = Recorder(*providers.metrics) if providers.metrics else None
        self._handler = OtlpHandler(*providers.logs) if providers.logs else None
        if self._handler is not None:
            logging.getLogger().addHandler(self._handler)

    @property
    def enabled(self) -> bool:
        return True

    def wrap(self, app: Any) -> Any:
        return traced_app(app)

    def seen(self, scope: Scope) -> Request | None:
        return self._requests.seen(scope)

    def call_span(self, call: Call, headers: Mapping[str, str], address: tuple[str, int]) -> Span:
        operation, model = call.endpoint.operation, printable(call.model)
        kind = (operation, model, address, call.streams)
        name, attributes = self._kinds.get(kind) or self._made(kind)
        if call.parameters:
            attributes = attributes | {NAMES[name]: _shown(value) for name, value in call.parameters}
        server = current_server_span()
        context = set_span_in_context(server) if server is not None else None
        span = self._tracer.start_span(name, context, SpanKind.CLIENT, attributes)
        return CallSpan(span, Operation(operation, model, address), server, self._recorder, self._turns)

    def _made(self, kind: _Kind) -> tuple[str, dict[str, AttributeValue]]:
        """The name and the attributes of the CLIENT spans of one kind of calls."""
        operation, model, address, streams = kind
        attributes: dict[str, AttributeValue] = {
            NAMES["operation"]: operation,
            NAMES["provider"]: PROVIDER,
            NAMES["request_model"]: model,
            NAMES["server_address"]: address[0],
            NAMES["server_port"]: address[1],
        }
        if streams:
            # The convention has this attribute on streams alone: without it a call is one that does not stream.
            attributes[NAMES["request_stream"]] = True
        if len(self._kinds) >= MAX_KINDS:  # callers choose the model
            self._kinds.clear()
        made = self._kinds[kind] = (f"{operation} {model[:MAX_NAME_CHARACTERS]}".rstrip(), attributes)
        return made

    def stream_ended(self, ending: Ending) -> None:
        server = current_server_span()
        if server is not None:
            server.stream_ended(ending)
        log_ending(ending, ids_of(server) if server is not None else None)

    def rejected(self, reason: str) -> None:
        server = current_server_span()
        if server is not None:
            server.stream_ended(Ending("rejected", error_type=reason))

    async def close(self) -> None:
        await self._turns.over()
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
        await self._providers.close()


def _shown(value: str | float) -> str | float:
    return printable(value) if isinstance(value, str) else value
