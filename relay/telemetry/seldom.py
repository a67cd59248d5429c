"""What OpenTelemetry complains of, in the relay's log: each complaint once a minute, for a dead collector is one fact."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

__all__ = ["LOG_INTERVAL_SECONDS", "Seldom", "quieten"]

log = logging.getLogger("relay.telemetry")

LOG_INTERVAL_SECONDS: Final = 60.0
# These quote what they could not read: OTEL_EXPORTER_OTLP_HEADERS, where a Collector's key stands, and a caller's headers.
QUOTING: Final = ("opentelemetry.util.", "opentelemetry.trace.", "opentelemetry.baggage.")
# Complaints that are told apart. Texts differ in numbers and addresses, their templates do not, and are this many at most.
MAX_KINDS: Final = 32


class Seldom(logging.Handler):
    """Passes warnings on, one of a kind in LOG_INTERVAL_SECONDS. Of an exception its type is kept: its text may be anything."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._quiet_until: dict[tuple[str, str], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock()
        kind = (record.name, str(record.msg)[:100])
        if kind not in self._quiet_until and len(self._quiet_until) >= MAX_KINDS:
            kind = ("", "")
        if now < self._quiet_until.get(kind, 0.0):
            return
        self._quiet_until[kind] = now + LOG_INTERVAL_SECONDS
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
