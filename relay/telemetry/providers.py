"""The SDK's providers for the signals that are wanted, and their end.

A variable that the SDK cannot use costs the signal, not the relay: it is said once, and the relay serves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, TypeVar

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider

from .metrics import views
from .names import MAX_ATTRIBUTE_CHARACTERS
from .room import Logs, Room, Spans

__all__ = ["FLUSH_SECONDS", "Providers"]

log = logging.getLogger("relay.telemetry")

# The collector may be dead; the relay ends anyway.
FLUSH_SECONDS: Final = 3.0

Made = TypeVar("Made")


@dataclass(frozen=True)
class Providers:
    """One for each signal, None where it is off; and the room that spans and log records have to wait in."""

    traces: tuple[TracerProvider, Room] | None
    metrics: MeterProvider | None
    logs: tuple[LoggerProvider, Room] | None

    @classmethod
    def made(cls, signals: Collection[str]) -> Providers | None:
        """None where none can be made."""
        resource = _tried(
            "signals", lambda: Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or "relay"})
        )
        if resource is None:
            return None
        found = cls(
            _tried("traces", lambda: _traces(resource)) if "traces" in signals else None,
            _tried("metrics", lambda: _metrics(resource)) if "metrics" in signals else None,
            _tried("logs", lambda: _logs(resource)) if "logs" in signals else None,
        )
        return found if found.traces or found.metrics or found.logs else None

    async def close(self) -> None:
        """Flush and stop. The exporters have no time-out that holds, so they are left behind after FLUSH_SECONDS."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def flush() -> None:
            # Logs last: they may speak of the others.
            if self.traces:
                self.traces[0].shutdown()
            if self.metrics:
                self.metrics.shutdown()
            if self.logs:
                self.logs[0].shutdown()
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=flush, name="relay-flush-telemetry", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), FLUSH_SECONDS)
        except TimeoutError:
            log.warning("the last telemetry was not sent within %g s: the collector does not answer", FLUSH_SECONDS)


def _tried(signal: str, make: Callable[[], Made]) -> Made | None:
    try:
        return make()
    except (ValueError, TypeError, ArithmeticError, OSError, RuntimeError, LookupError) as error:
        # What the SDK raises for a number that is none, a size that contradicts another, a certificate that is not there.
        log.warning("the relay's %s are off: an OTEL_ variable cannot be used: %s", signal, error)
        return None


def _traces(resource: Resource) -> tuple[TracerProvider, Room]:
    # The sampler is the one of OTEL_TRACES_SAMPLER; the SDK reads it.
    provider = TracerProvider(
        resource=resource,
        span_limits=SpanLimits(max_attribute_length=MAX_ATTRIBUTE_CHARACTERS),
        shutdown_on_exit=False,  # `close` does it, and does not wait for ever
    )
    spans = Spans()
    provider.add_span_processor(spans)
    return provider, spans.room


def _metrics(resource: Resource) -> MeterProvider:
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    return MeterProvider([reader], resource=resource, views=views(), shutdown_on_exit=False)


def _logs(resource: Resource) -> tuple[LoggerProvider, Room]:
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    logs = Logs()
    provider.add_log_record_processor(logs)
    return provider, logs.room
