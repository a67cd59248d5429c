"""The relay's readers of an event stream against a slow one that follows the standard's text sentence by sentence.

https://html.spec.whatwg.org/multipage/server-sent-events.html, "Parsing an event stream" and "Interpreting an event stream".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from relay.protocol.chat import ChatFacts
from relay.protocol.sse import Event, EventDecoder, EventScanner

__all__ = ["check", "slow_events"]


def slow_events(data: bytes) -> list[Event]:
    """The events in a whole stream; what is not ended by a blank line is none."""
    text = data.decode("utf-8", errors="replace").removeprefix("\ufeff")
    *lines, _ = re.split("\r\n|\n|\r", text)
    events = []
    kind, content, identifier = "", "", ""
    for line in lines:
        if line == "":
            if content:
                events.append(Event(kind or "message", content.removesuffix("\n"), identifier))
            kind, content = "", ""
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                kind = value
            elif field == "data":
                content += value + "\n"
            elif field == "id" and "\0" not in value:
                identifier = value
    return events


def check(data: bytes) -> None:
    """The first byte says how the rest is cut."""
    size, stream = (data[0] % 16 + 1, data[1:]) if data else (1, b"")
    events = slow_events(stream)
    decoder = EventDecoder()
    assert [event for piece in _cut(stream, size) for event in decoder.feed(piece)] == events
    scanner, whole = EventScanner(), EventScanner()
    assert sum(map(scanner.feed, _cut(stream, size))) == whole.feed(stream)
    assert scanner.at_boundary == whole.at_boundary
    facts = ChatFacts()
    for piece in _cut(stream, size):
        facts.feed(piece)
    assert facts.done == any(event.data.startswith("[DONE]") for event in events)


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
