"""Passes OpenTelemetry's own warnings on to the relay's log, each of them once a minute: a dead Collector is one fact."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from ..log import Throttle

__all__ = ["LOG_INTERVAL_SECONDS", "Seldom", "quieten"]

log = logging.getLogger("relay.telemetry")

LOG_INTERVAL_SECONDS: Final = 60.0
# These quote what they could not read: OTEL_EXPORTER_OTLP_HEADERS, where a Collector's key stands, and a caller's headers.
QUOTING: Final = ("opentelemetry.util.", "opentelemetry.trace.", "opentelemetry.baggage.")


class Seldom(logging.Handler):
    """Passes warnings on, one of a kind in LOG_INTERVAL_SECONDS. Of an exception its type is kept: its text may be anything."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._throttle = Throttle(LOG_INTERVAL_SECONDS, clock)

    def emit(self, record: logging.LogRecord) -> None:
        # Texts differ in numbers and addresses, their templates do not.
        if not self._throttle.due((record.name, str(record.msg)[:100])):
            return
        cause = f": {record.exc_info[0].__name__}" if record.exc_info and record.exc_info[0] else ""
        quotes = record.name.startswith(QUOTING)
        text = str(record.msg).replace("%s", "(not shown)") if quotes else record.getMessage()
        log.warning("%s%s (more of it is not logged for %g s)", text, cause, LOG_INTERVAL_SECONDS)


def quieten() -> None:
    """Put a `Seldom` in front of OpenTelemetry's own loggers."""
    logger = logging.getLogger("opentelemetry")
    logger.propagate = False
    if not any(isinstance(handler, Seldom) for handler in logger.handlers):
        logger.addHandler(Seldom())
