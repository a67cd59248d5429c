"""The parts of a relayed stream: the call to the upstream, the span that records it, and the options of all streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from diagnostics import StreamRecord

from ..protocol.endpoints import Endpoint
from ..protocol.facts import Facts
from ..protocol.parameters import Parameters
from ..upstream.body import Body
from .ending import Ending
from .patience import Limits
from .read_ahead import ReadAhead

__all__ = ["Call", "Span", "StreamOptions"]


class Span(Protocol):
    """The span of one call to the upstream, as a stream uses it (telemetry/call.py)."""

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits, or None where nothing is traced."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The trace context for the request to the upstream, so that its spans join this trace."""

    def first_chunk(self) -> None:
        """The first chunk of the upstream's body has come."""

    def event(self, name: str, **about: str | float) -> None:
        """Add an event of telemetry/names.py, with its attributes, to the span. Never called for each chunk."""

    def swept(self, record: StreamRecord, since: float, now: float) -> bool:
        """Called by the sweep, which looked at the stream last at `since`; monotonic seconds.

        Returns False where the span must be called in the next sweep too, whether or not events have come.
        """

    def end(self, ending: Ending, facts: Facts | None = None) -> None:
        """End the span. A stream gets its line in the log."""


@dataclass(slots=True)
class Call:
    """One request to the upstream.

    model       as the request names it; "" where the upstream has it stored
    content     the request's JSON as it came, up to megabytes: forgotten once the upstream has answered, since a stream may
                last hours
    parameters  what the request asks for (protocol/parameters.py); forgotten with the content
    """

    endpoint: Endpoint
    model: str
    streams: bool
    content: bytes
    parameters: Parameters = ()

    def forget_content(self) -> None:
        """Drop the JSON and what was read from it: the upstream has answered, and no retry will need it."""
        self.content = b""
        self.parameters = ()


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The options that all streams of one relay share.

    max_event_bytes    a larger event of the upstream's ends its stream
    degraded_message   the text that answers a chat while no upstream is available; "": the error is answered
    read_ahead         wraps a body so that it is read ahead of a slow client; None: only as fast as the client takes it
    ended              called at each stream's end with its facts and its span; None: nothing is called
    """

    limits: Limits
    max_event_bytes: int
    degraded_message: str = ""
    read_ahead: Callable[[Body], ReadAhead] | None = None
    ended: Callable[[Ending, Span], None] | None = None
