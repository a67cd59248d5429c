"""What a relayed stream is made from: the call to the upstream, the span that records it, and the options of all streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from diagnostics import StreamRecord

from ..errors import ApiError
from ..protocol.endpoints import Endpoint
from ..protocol.facts import Facts
from ..upstream.body import Body
from .ending import Ending
from .patience import Limits
from .read_ahead import ReadAhead

__all__ = ["Call", "Span", "StreamOptions"]


class Span(Protocol):
    """What a stream tells the trace about its call to the upstream (see telemetry/)."""

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits, or None where nothing is traced."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What the upstream is sent, so that its own spans belong to this trace."""

    def first_chunk(self) -> None: ...

    def event(self, name: str, **about: str | float) -> None:
        """Something happened to the stream: one of the events in telemetry/names.py. Never called for each chunk."""

    def swept(self, record: StreamRecord, since: float, now: float) -> bool:
        """The sweep has looked at the stream, as it did at `since`. False: tell the next time too, in any case."""

    def end(
        self,
        outcome: str,
        *,
        record: StreamRecord | None = None,
        facts: Facts | None = None,
        error: ApiError | None = None,
    ) -> None:
        """It is over. A stream has a record, and gets its line in the log."""


@dataclass(slots=True)
class Call:
    """One request to the upstream: what the trace and the relay need of it, and its JSON as it came.

    model     as asked for; "" where the upstream has it stored
    content   may be megabytes: whoever has sent it forgets it, since a stream may be hours
    """

    endpoint: Endpoint
    model: str
    streams: bool
    content: bytes

    def forget_content(self) -> None:
        """The upstream has answered."""
        self.content = b""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What holds for all streams of one relay.

    degraded_message   what a chat is answered when no upstream can be had; "": the error
    read_ahead         None: nothing is read that the client has no room for
    ended              is told how each stream ended, and its trace; None: nobody is
    """

    limits: Limits
    max_event_bytes: int
    degraded_message: str = ""
    read_ahead: Callable[[Body], ReadAhead] | None = None
    ended: Callable[[Ending, str | None], None] | None = None
