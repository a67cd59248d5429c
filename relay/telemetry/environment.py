"""Reads the standard OTEL_* variables. A wrong value is logged once, and only its own signal is off.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Final
from urllib.parse import urlsplit

__all__ = [
    "OPT_IN",
    "PROPAGATORS",
    "PROTOCOL",
    "SIGNALS",
    "exported_signals",
    "genai_of_1_41",
    "known_propagators",
    "stable_http",
]

log = logging.getLogger("relay.telemetry")

SIGNALS: Final = ("traces", "metrics", "logs")
PROTOCOL: Final = "http/protobuf"  # of the only exporter that is installed
PROPAGATORS: Final = "OTEL_PROPAGATORS"
DEFAULT_PROPAGATORS: Final = "tracecontext,baggage"
# Selects the semantic conventions: of HTTP's for the ASGI instrumentation, which reads it once, on import, and GenAI's.
OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
GENAI: Final = "gen_ai_latest_experimental"


def exported_signals(environment: Mapping[str, str]) -> frozenset[str]:
    """The signals to export: those with a usable OTLP endpoint. Logs a warning for each wrong value."""
    settings = {
        name: value.strip() for name, value in environment.items() if name.startswith("OTEL_") and value.strip()
    }
    if settings.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return frozenset()
    signals = frozenset(signal for signal in SIGNALS if _is_exported(signal, settings))
    if signals:
        for complaint in _wrong_protocols(signals, settings):
            log.warning(complaint)
    return signals


def stable_http(opted_in: str) -> str:
    """The value of OPT_IN with HTTP's stable names added, unless it selects them already.

    >>> stable_http(""), stable_http("database"), stable_http("http/dup")
    ('http', 'database,http', 'http/dup')
    """
    words = _words(opted_in)
    return ",".join(words if {"http", "http/dup"} & set(words) else [*words, "http"])


def genai_of_1_41(opted_in: str) -> bool:
    """Whether a value of OPT_IN asks for the metrics of the GenAI conventions 1.41, too; those of 0.1.0 are always there.

    As with `http`, the word alone selects the new names, `/dup` both, and where both words stand, `/dup` counts. Without either
    both are there until the conventions are stable: what has been built on the old names goes on.

    >>> genai_of_1_41("http"), genai_of_1_41("gen_ai_latest_experimental"), genai_of_1_41("gen_ai_latest_experimental/dup")
    (True, False, True)
    """
    words = _words(opted_in)
    return GENAI not in words or f"{GENAI}/dup" in words


def _words(opted_in: str) -> list[str]:
    return [word for word in opted_in.replace(" ", "").split(",") if word]


def known_propagators(text: str) -> str:
    """A value of PROPAGATORS that works: `text`, or the default where one of its propagators is not installed."""
    installed = {entry.name for entry in entry_points(group="opentelemetry_propagator")} | {"none"}
    unknown = sorted({name.strip().lower() for name in text.split(",")} - installed)
    if not unknown:
        return text
    log.warning("%s is %r: no propagator %s is installed; it is %s", PROPAGATORS, text, unknown, DEFAULT_PROPAGATORS)
    return DEFAULT_PROPAGATORS


def _is_exported(signal: str, settings: Mapping[str, str]) -> bool:
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    name = own if own in settings else "OTEL_EXPORTER_OTLP_ENDPOINT"
    if name not in settings:
        return False
    choice = f"OTEL_{signal.upper()}_EXPORTER"
    exporters = {word.strip().lower() for word in settings.get(choice, "otlp").split(",")}
    if "otlp" not in exporters:
        if exporters != {"none"}:
            log.warning("%s is %r: the relay knows otlp and none; its %s are off", choice, settings[choice], signal)
        return False
    if not _is_url(settings[name]):
        log.warning("%s is %r: it must be an http or https URL; the relay's %s are off", name, settings[name], signal)
        return False
    return True


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is no number
        return False


def _wrong_protocols(signals: frozenset[str], settings: Mapping[str, str]) -> Iterator[str]:
    names = ("OTEL_EXPORTER_OTLP_PROTOCOL", *(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL" for signal in signals))
    for name in names:
        if settings.get(name, PROTOCOL).lower() != PROTOCOL:
            yield f"{name} is {settings[name]!r}: the relay speaks {PROTOCOL} only, usually to port 4318, and goes on with it"
