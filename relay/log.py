"""The relay's log: one JSON object on a line, or text for people, to standard error.

By the standard library's logging, since the lines of streams, of uvicorn and of other libraries all come through it, and a
formatter is thirty lines; structlog would be a second way beside it. The data of a line are in its fields
(`extra={"fields": {...}}`) and not in its message, so that no program has to parse messages. The fields of a stream's line are
made in stream/ending.py.

Frequent lines must not fill the log: a `Throttle` lets the first one of a kind through, then one in each interval.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["JsonFormatter", "TextFormatter", "Throttle", "configure"]

# Kinds that a throttle distinguishes; all later ones count as one kind, so that its memory is bounded.
MAX_KINDS: Final = 32

_to_json: Final = json.JSONEncoder(default=str).encode


class JsonFormatter(logging.Formatter):
    """A JSON object on one line, in ASCII: neither half a surrogate pair nor a line break in a value can break the line."""

    _second = (-1, "")  # the last one that a line was of, in seconds since the epoch, and as text

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self._time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _to_json(line)

    def _time(self, at: float) -> str:
        """ISO 8601 in UTC, to the millisecond. The lines of one second share most of it, which takes long to make."""
        second = int(at)
        known, text = self._second
        if known != second:
            text = datetime.fromtimestamp(second, UTC).isoformat()[:-6]
            self._second = (second, text)  # in one step: other threads log, too
        return f"{text}.{int((at - second) * 1000):03d}+00:00"


class TextFormatter(logging.Formatter):
    """Text for a terminal: the message, then the fields as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        fields = getattr(record, "fields", {})
        return super().formatMessage(record) + "".join(f" {name}={_shown(value)}" for name, value in fields.items())


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) and not value.isidentifier() and " " in value else str(value)


def configure(level: str, form: str) -> None:
    """Log to standard error: the relay's own lines from `level` on, all others from WARNING on.

    form   `json`, `text`, or `auto`: text where standard error is a terminal

    The source line, thread and process of a line are not looked up, to save time (Python's logging HOWTO, Optimization).
    """
    logging._srcfile = None  # noqa: SLF001  # as the HOWTO recommends
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("relay").setLevel(level.upper())


class Throttle:
    """Decides which lines of a kind are logged: the first at once, then at most one in each `seconds`.

    Not thread-safe: callers in several threads need a lock.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._kinds: dict[Hashable, tuple[float, int]] = {}

    def due(self, kind: Hashable = None) -> int:
        """Count a line of this kind. Returns 0 where it must not be logged, else the number of lines that it stands for."""
        if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
            kind = Throttle
        now = self._clock()
        quiet_until, silent = self._kinds.get(kind, (now, 0))
        if now < quiet_until:
            self._kinds[kind] = (quiet_until, silent + 1)
            return 0
        self._kinds[kind] = (now + self.seconds, 0)
        return silent + 1
