"""The relay's log: one JSON object on a line, or text for people, to standard error.

The standard library does it, since the line of a stream, the server's complaints and a library's warnings all come through
it, and a formatter is thirty lines; structlog would be a second way beside it. What a line is about stands in its fields
(`extra={"fields": {...}}`), not in the text, so that nobody has to take it apart again.

What happens in great numbers must not fill the log: a `Throttle` lets the first of a kind through, then one in each interval.
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

# Kinds that a throttle tells apart; all that come later count as one, so that its memory has a bound.
MAX_KINDS: Final = 32

_to_json: Final = json.JSONEncoder(default=str).encode


class JsonFormatter(logging.Formatter):
    """ASCII only: neither half a surrogate pair nor a line break in a name can break a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _to_json(line)


class TextFormatter(logging.Formatter):
    """The same for a terminal: fields as name=value behind the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        fields = getattr(record, "fields", {})
        return super().formatMessage(record) + "".join(f" {name}={_shown(value)}" for name, value in fields.items())


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) and not value.isidentifier() and " " in value else str(value)


def configure(level: str, form: str) -> None:
    """Log to standard error: the relay's own from `level` on, everything else from WARNING on.

    form   `json`, `text`, or `auto`: text where standard error is a terminal

    No line says which source line, thread or process wrote it: none is looked up (Python's logging HOWTO, Optimization).
    """
    logging._srcfile = None  # noqa: SLF001  # as the HOWTO has it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("relay").setLevel(level.upper())


class Throttle:
    """Decides which lines of a kind are logged: the first at once, then at most one in each `seconds`.

    Not for several threads at a time: whoever has them calls it under a lock.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._kinds: dict[Hashable, tuple[float, int]] = {}

    def due(self, kind: Hashable = None) -> int:
        """How many lines of this kind the one that is due now stands for, itself included; 0 where none is due."""
        if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
            kind = Throttle
        now = self._clock()
        quiet_until, silent = self._kinds.get(kind, (now, 0))
        if now < quiet_until:
            self._kinds[kind] = (quiet_until, silent + 1)
            return 0
        self._kinds[kind] = (now + self.seconds, 0)
        return silent + 1
