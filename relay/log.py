"""The relay's log: one JSON object on a line, or text for people, to standard error.

The standard library does it, since the line of a stream, the server's complaints and a library's warnings all come through
it, and a formatter is thirty lines; structlog would be a second way beside it. What a line is about stands in its fields
(`extra={"fields": {...}}`), not in the text, so that nobody has to take it apart again.

What is thrown away in great numbers must not fill the log either: `Rejections` logs each reason once in a while, with a count.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["JsonFormatter", "Rejections", "TextFormatter", "configure"]

REJECTION_SECONDS: Final = 10.0

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
    logging._srcfile = None  # as the HOWTO has it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("relay").setLevel(level.upper())


class Rejections:
    """Logs what was not let in: the first of a reason at once, then one line each REJECTION_SECONDS that says how many.

    Call it with the reason, one of a few fixed words, for each refusal.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._log = logging.getLogger("relay.admission")
        self._seen: dict[str, tuple[float, int]] = {}

    def __call__(self, reason: str) -> None:
        now = self._clock()
        quiet_until, unsaid = self._seen.get(reason, (0.0, 0))
        if now < quiet_until:
            self._seen[reason] = (quiet_until, unsaid + 1)
            return
        self._seen[reason] = (now + REJECTION_SECONDS, 0)
        fields = {"outcome": "rejected", "reason": reason, "count": unsaid + 1}
        self._log.warning("requests were not let in", extra={"fields": fields})
