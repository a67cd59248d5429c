"""Logs why requests to an upstream fail, in addition to the line that each stream gets at its end.

A cause may name an address, so it goes to the log and not into the error, which a client may read. A thousand streams that
fail in the same way make one line with a count.
"""

from __future__ import annotations

import logging
from typing import Final

from ..log import Throttle

__all__ = ["cannot_be_reached", "cannot_be_read"]

CAUSE_SECONDS: Final = 10.0

log = logging.getLogger("relay.upstream")
_throttle: Final = Throttle(CAUSE_SECONDS)


def cannot_be_reached(host: str, port: int, error: OSError, *, tls: bool) -> None:
    """Log that no connection could be made, with the error of the socket or of TLS."""
    cause = f"{type(error).__name__}: {error.strerror or error}"
    _warn("an upstream cannot be reached", "tls" if tls else "connect", host=host, port=port, cause=cause)


def cannot_be_read(cause: str) -> None:
    """Log that an answer is not HTTP; `cause` is the parser's message."""
    _warn("an upstream's answer cannot be read", "not_http", cause=cause)


def _warn(message: str, reason: str, **about: str | int) -> None:
    count = _throttle.due(reason)
    if count:
        log.warning(message, extra={"fields": {"reason": reason, "count": count, **about}})
