"""Telemetry without OpenTelemetry: the interface that the relay reports to, and one line in the log for each stream."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from diagnostics import StreamRecord

from ..protocol.facts import Facts
from ..stream.ending import Ending, TraceIds, log_ending

if TYPE_CHECKING:
    from ..client.outside import Seen
    from ..client.reply import Scope
    from ..stream.call import Call, Span

__all__ = ["Telemetry", "Untraced"]

TRACE_HEADERS: Final = ("traceparent", "tracestate")
_TRACEPARENT: Final = re.compile("[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Telemetry:
    """Telemetry that is off, at the cost of two look-ups in a request's headers. The interface of Traced, too."""

    @property
    def enabled(self) -> bool:
        return False

    def wrap(self, app: Any) -> Any:
        """`app`, in which the SERVER span of each request is the current span."""
        return app

    def seen(self, scope: Scope) -> Seen | None:
        """The observer of the request in `scope`, before the app gets it; None where nothing is traced."""
        return None

    def call_span(self, call: Call, headers: Mapping[str, str], address: tuple[str, int]) -> Span:
        """A span for one call to the upstream at `address`; `headers` are those of the caller's request."""
        return Untraced({name: headers[name] for name in TRACE_HEADERS if name in headers})

    def stream_ended(self, ending: Ending) -> None:
        """Log the end of a stream that has no upstream (a topic's subscription). Called in the task that served it."""
        log_ending(ending, None)

    def rejected(self, reason: str) -> None:
        """The request that this task serves was refused; `reason` is one of a few fixed words."""

    async def close(self) -> None:
        """Export the rest of the signals, within a few seconds."""


class Untraced:
    """What a stream gets in place of a span while tracing is off: it forwards the caller's trace headers and logs the end."""

    trace_id: str | None = None

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers

    def first_chunk(self) -> None:
        pass

    def event(self, name: str, **about: str | float) -> None:
        pass

    def swept(self, record: StreamRecord, since: float, now: float) -> bool:
        return True

    def end(self, ending: Ending, facts: Facts | None = None) -> None:
        if ending.of_stream:
            log_ending(ending, self._caller())

    def _caller(self) -> TraceIds | None:
        """The caller's trace and span from its `traceparent` header, so that the log line can be match from its trace."""
        match = _TRACEPARENT.fullmatch(self.headers.get("traceparent", ""))
        return TraceIds(match[1], match[2], int(match[3], 16) & 1 == 1) if match else None
