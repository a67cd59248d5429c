"""The relay's log: one JSON object on a line, or text for people, to standard error.

The standard library does it, since the line of a stream, the server's complaints and a library's warnings all come through
it, and a formatter is thirty lines; structlog would be a second way beside it. What a line is about stands in its fields
(`extra={"fields": {...}}`), not in the text, so that nobody has to take it apart again.

What happens in great numbers must not fill the log either: `Seldom` logs each kind once in a while, with a count.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["JsonFormatter", "Rejections", "Seldom", "TextFormatter", "configure"]

SELDOM_SECONDS: Final = 10.0

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


class Seldom:
    """Logs what may happen in great numbers: the first of a kind at once, then one line each SELDOM_SECONDS that says how many.

    logger    its name
    message   the line's text

    Call it with the kind, one of a few fixed words, and with what else the line says of the one that is logged.
    """

    def __init__(self, logger: str, message: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._log = logging.getLogger(logger)
        self._message = message
        self._seen: dict[str, tuple[float, int]] = {}

    def __call__(self, reason: str, **about: str | int) -> None:
        now = self._clock()
        quiet_until, unsaid = self._seen.get(reason, (0.0, 0))
        if now < quiet_until:
            self._seen[reason] = (quiet_until, unsaid + 1)
            return
        self._seen[reason] = (now + SELDOM_SECONDS, 0)
        self._log.warning(self._message, extra={"fields": {"reason": reason, "count": unsaid + 1, **about}})


class Rejections:
    """Logs what was not let in, seldom: the reason, and as `cause` what a parser said, where it was a parser's finding."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._seldom = Seldom("relay.admission", "requests were not let in", clock)

    def __call__(self, reason: str, cause: str = "") -> None:
        self._seldom(reason, outcome="rejected", **({"cause": cause} if cause else {}))
