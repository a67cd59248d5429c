"""Logs OpenTelemetry's own warnings, each at most once a minute: while a Collector is down, every export logs the same ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from ..log import Throttle

__all__ = ["LOG_INTERVAL_SECONDS", "ThrottledWarnings", "quieten"]

log = logging.getLogger("relay.telemetry")

LOG_INTERVAL_SECONDS: Final = 60.0
# Loggers that quote values they cannot parse: of OTEL_EXPORTER_OTLP_HEADERS, which holds a Collector's key, and of callers.
QUOTING: Final = ("opentelemetry.util.", "opentelemetry.trace.", "opentelemetry.baggage.")


class ThrottledWarnings(logging.Handler):
    """A handler that logs one warning of a kind in LOG_INTERVAL_SECONDS, with an exception's type but not its message."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._throttle = Throttle(LOG_INTERVAL_SECONDS, clock)

    def emit(self, record: logging.LogRecord) -> None:
        # A kind is a template: messages of one template differ in numbers and addresses.
        if not self._throttle.due((record.name, str(record.msg)[:100])):
            return
        cause = f": {record.exc_info[0].__name__}" if record.exc_info and record.exc_info[0] else ""
        quotes = record.name.startswith(QUOTING)
        text = str(record.msg).replace("%s", "(not shown)") if quotes else record.getMessage()
        log.warning("%s%s (more of it is not logged for %g s)", text, cause, LOG_INTERVAL_SECONDS)


def quieten() -> None:
    """Make a `ThrottledWarnings` the handler of OpenTelemetry's own loggers."""
    logger = logging.getLogger("opentelemetry")
    logger.propagate = False
    if not any(isinstance(handler, ThrottledWarnings) for handler in logger.handlers):
        logger.addHandler(ThrottledWarnings())
