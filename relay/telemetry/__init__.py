"""Facts -> OpenTelemetry: traces, metrics and logs over OTLP. The only package that imports it, and only when there is
somewhere to send them.

Without OTEL_EXPORTER_OTLP_ENDPOINT (or one of a signal's own) nothing of its SDK is loaded, and the relay hands a
caller's `traceparent` on unchanged, as a hop that takes no part in the trace does (W3C Trace Context).

    environment.py  what OTEL_* asks for, and what is wrong with it
    off.py          the interface, and what is done of it where nothing is sent: one line in the log for each stream
    traced.py       the same with OpenTelemetry
    call.py         the CLIENT span: one for each call to an upstream
    server.py       the SERVER span, begun at once
    instrumentation.py  what stands in it, by the ASGI instrumentation; its defects are worked around here and nowhere else
    deferred.py     both spans are made by the SDK when they end, and weigh little until then
    turns.py        what is told of a stream's end is told in turns, between events
    room.py         what waits to be sent has room to wait in, or is not made
    metrics.py      the GenAI client metrics, and the Views
    http_metrics.py HTTP's own server metrics
    logs.py         the log's lines over OTLP
    names.py        the one table of names
    seldom.py       what OpenTelemetry itself complains of, once a minute

No prompt, completion, header, key or query reaches any of them.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from .environment import OPT_IN, PROPAGATORS, known_propagators, stable_http, wanted
from .names import NAMES
from .off import Telemetry
from .seldom import quieten

__all__ = ["NAMES", "Telemetry", "prepare", "setup"]


def prepare() -> None:
    """Before anything imports OpenTelemetry, as FastAPI does: it reads variables then, and fails on one that is wrong."""
    quieten()
    if os.environ.get(PROPAGATORS):
        os.environ[PROPAGATORS] = known_propagators(os.environ[PROPAGATORS])


def setup(routes: Collection[str]) -> Telemetry:
    """Telemetry as the standard OTEL_* variables say. `routes` are the paths that may name a span; a part of one in
    braces stands for anything."""
    signals = wanted(os.environ)
    if not signals:
        return Telemetry()
    os.environ[OPT_IN] = stable_http(os.environ.get(OPT_IN, ""))
    from .providers import Providers
    from .traced import Traced

    providers = Providers.made(signals)
    return Traced(providers, routes) if providers is not None else Telemetry()
