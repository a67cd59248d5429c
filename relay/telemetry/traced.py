"""Telemetry with OpenTelemetry."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import NoOpTracerProvider, SpanKind, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..ending import Ending, log_ending
from .call import CallSpan, ids_of
from .logs import OtlpHandler
from .metrics import Operation, Recorder
from .names import NAMES, PROVIDER, printable
from .off import Telemetry
from .providers import Providers
from .server import current_server_span, traced_app

if TYPE_CHECKING:
    from ..stream import Call, Span

__all__ = ["Traced"]

MAX_NAME_CHARACTERS: Final = 128


class Traced(Telemetry):
    """Spans, metrics and log records of the relay's requests, for those signals that `providers` has."""

    def __init__(self, providers: Providers, routes: Collection[str]) -> None:
        self._providers = providers
        self._routes = routes
        # Without traces its spans are the caller's: metrics and logs belong to them, and the upstream's spans, too.
        self._tracer = (providers.traces or NoOpTracerProvider()).get_tracer("highwater.relay")
        self._recorder = Recorder(providers.metrics) if providers.metrics else None
        self._handler = OtlpHandler(providers.logs) if providers.logs else None
        self._propagator = TraceContextTextMapPropagator()
        if self._handler is not None:
            logging.getLogger().addHandler(self._handler)

    @property
    def enabled(self) -> bool:
        return True

    def wrap(self, app: Any) -> Any:
        return traced_app(app, self._tracer, self._providers.metrics, self._routes)

    def call_span(self, call: Call, headers: Mapping[str, str], address: tuple[str, int]) -> Span:
        operation, model = call.endpoint.operation, printable(call.model)
        span = self._tracer.start_span(
            f"{operation} {model[:MAX_NAME_CHARACTERS]}".rstrip(),
            kind=SpanKind.CLIENT,
            attributes={
                NAMES["operation"]: operation,
                NAMES["provider"]: PROVIDER,
                NAMES["request_model"]: model,
                NAMES["request_stream"]: call.streams,
                NAMES["server_address"]: address[0],
                NAMES["server_port"]: address[1],
            },
        )
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context=set_span_in_context(span))
        return CallSpan(span, carrier, Operation(operation, model, address), current_server_span(), self._recorder)

    def stream_ended(self, ending: Ending) -> None:
        server = current_server_span()
        if server is not None:
            server.told(ending)
        log_ending(ending, ids_of(server) if server is not None else None)

    def rejected(self, reason: str) -> None:
        server = current_server_span()
        if server is not None:
            server.told(Ending("rejected", error_type=reason))

    async def close(self) -> None:
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
        await self._providers.close()
