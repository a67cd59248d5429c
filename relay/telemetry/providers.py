"""Makes the SDK's providers for the signals to export, and shuts them down.

Where the SDK cannot use the value of a variable, that is logged once, its signal is off, and the relay serves without it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider

from .deferred import Traces
from .environment import OPT_IN, genai_of_1_41
from .export_queue import ExportQueue, Logs, Spans
from .metrics.genai import with_names_of_1_41
from .metrics.histograms import Histograms
from .names import MAX_ATTRIBUTE_CHARACTERS

__all__ = ["FLUSH_SECONDS", "Providers"]

log = logging.getLogger("relay.telemetry")

# The longest wait for the last export at shutdown: the Collector may be down.
FLUSH_SECONDS: Final = 3.0

Made = TypeVar("Made")


@dataclass(frozen=True)
class Providers:
    """The provider of each signal, None where it is off; for spans and log records with what else is needed to make them."""

    traces: Traces | None
    metrics: tuple[MeterProvider, Histograms] | None
    logs: tuple[LoggerProvider, ExportQueue] | None

    @classmethod
    def made(cls, signals: Collection[str]) -> Providers | None:
        """The providers of these signals; None where none can be made."""
        resource = _tried(
            "signals",
            lambda: HashedOnce(Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or "relay"})),
        )
        if resource is None:
            return None
        providers = cls(
            _tried("traces", lambda: _traces(resource)) if "traces" in signals else None,
            _tried("metrics", lambda: _metrics(resource)) if "metrics" in signals else None,
            _tried("logs", lambda: _logs(resource)) if "logs" in signals else None,
        )
        return providers if providers.traces or providers.metrics or providers.logs else None

    async def close(self) -> None:
        """Flush and stop. The exporters do not keep their time-outs, so they run in a thread, awaited for FLUSH_SECONDS."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def flush() -> None:
            # Logs last, with the lines that the others' shutdown logs.
            if self.traces:
                self.traces.provider.shutdown()
            if self.metrics:
                self.metrics[0].shutdown()
            if self.logs:
                self.logs[0].shutdown()
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        try:
            threading.Thread(target=flush, name="relay-flush-telemetry", daemon=True).start()
        except RuntimeError as error:
            log.warning("the last telemetry was not sent: %s", error)
            return
        try:
            await asyncio.wait_for(done.wait(), FLUSH_SECONDS)
        except TimeoutError:
            log.warning("the last telemetry was not sent within %g s: the collector does not answer", FLUSH_SECONDS)


class HashedOnce(Resource):
    """A copy of a resource. The SDK's encoder looks up the resource of each span and each log record in a dict, and the hash of
    an SDK resource is that of all its attributes as JSON, made anew each time: a tenth of what the encoding of a span takes."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.attributes, resource.schema_url)
        self._known_hash = super().__hash__()

    def __hash__(self) -> int:
        return self._known_hash


def _tried(signal: str, make: Callable[[], Made]) -> Made | None:
    try:
        return make()
    except (ValueError, TypeError, ArithmeticError, OSError, RuntimeError, LookupError) as error:
        # The SDK's errors for a bad number, sizes that contradict each other, a missing certificate.
        log.warning("the relay's %s are off: an OTEL_ variable cannot be used: %s", signal, error)
        return None


def _traces(resource: Resource) -> Traces:
    limits = SpanLimits(max_attribute_length=MAX_ATTRIBUTE_CHARACTERS)
    # The SDK reads OTEL_TRACES_SAMPLER itself.
    provider = TracerProvider(
        resource=resource,
        span_limits=limits,
        shutdown_on_exit=False,  # `close` does that, with a time-out
    )
    spans = Spans()
    provider.add_span_processor(spans)
    return Traces(provider, spans, limits, spans.queue)


def _metrics(resource: Resource) -> tuple[MeterProvider, Histograms]:
    histograms = Histograms("highwater.relay", os.environ)
    both = genai_of_1_41(os.environ.get(OPT_IN, ""))
    reader = PeriodicExportingMetricReader(_Exporter(histograms, of_1_41=both))
    return MeterProvider([reader], resource=resource, shutdown_on_exit=False), histograms


class _Exporter(OTLPMetricExporter):
    """Exports the relay's histograms, too, and GenAI metrics by the names of the conventions 1.41 where these are asked for."""

    def __init__(self, histograms: Histograms, *, of_1_41: bool) -> None:
        super().__init__()
        self._histograms = histograms
        self._of_1_41 = of_1_41

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10000, **options: Any
    ) -> MetricExportResult:
        data = self._histograms.among(metrics_data)
        return super().export(with_names_of_1_41(data) if self._of_1_41 else data, timeout_millis, **options)


def _logs(resource: Resource) -> tuple[LoggerProvider, ExportQueue]:
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    logs = Logs()
    provider.add_log_record_processor(logs)
    return provider, logs.queue
