"""Traces, metrics and logs over OTLP. The only package that imports OpenTelemetry, and only where an endpoint is configured.

Without OTEL_EXPORTER_OTLP_ENDPOINT (or one of a signal's own) the SDK is not loaded, and the relay forwards a caller's
`traceparent` unchanged, as a hop that takes no part in the trace does (W3C Trace Context).

    environment.py  which signals OTEL_* asks for, and warnings about wrong values
    off.py          the interface, and telemetry without OpenTelemetry: one line in the log for each stream
    traced.py       the interface with OpenTelemetry
    call.py         the CLIENT span: one for each call to an upstream
    server.py       the SERVER span: one for each request
    instrumentation.py  the SERVER span's attributes, by the ASGI instrumentation, with work-arounds for its defects
    deferred.py     a tracer whose spans are made by the SDK when they end, and are small until then
    loop_turns.py   the work at a stream's end in steps, so that events of other streams come between
    export_queue.py counts what waits for export: a span or record that would be dropped is not made
    metrics/        the GenAI client metrics, HTTP's own server metrics, and the histograms of both
    log_export.py   the log's lines over OTLP
    names.py        the one table of names of attributes, events and metrics
    sdk_warnings.py OpenTelemetry's own warnings, each once a minute

No prompt, completion, header, key or query string reaches any of them.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from .environment import OPT_IN, PROPAGATORS, exported_signals, known_propagators, stable_http
from .names import NAMES
from .off import Telemetry
from .sdk_warnings import quieten

__all__ = ["NAMES", "Telemetry", "prepare", "setup"]


def prepare() -> None:
    """Must be called before the first import of OpenTelemetry (FastAPI does one): that reads OTEL_* and fails on bad values."""
    quieten()
    if os.environ.get(PROPAGATORS):
        os.environ[PROPAGATORS] = known_propagators(os.environ[PROPAGATORS])


def setup(routes: Collection[str]) -> Telemetry:
    """Telemetry as the standard OTEL_* variables configure it. `routes` are the path templates that may name a span, with
    parameters in braces."""
    signals = exported_signals(os.environ)
    if not signals:
        return Telemetry()
    os.environ[OPT_IN] = stable_http(os.environ.get(OPT_IN, ""))
    from .providers import Providers
    from .traced import Traced

    providers = Providers.made(signals)
    return Traced(providers, routes) if providers is not None else Telemetry()
