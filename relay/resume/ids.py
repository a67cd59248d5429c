"""The ids of streams and of their events. An event's id is the stream's id and the event's number in it, from 1 on.

The id of a stream is 120 random bits: where the relay has no client keys, to know it is the right to read the stream.

OpenAI numbers the events of a response, too, by `sequence_number`. Both count every event of the stream, so that the difference
of the two numbers is the same for all of them. It is not always 1: OpenAI begins with 0, other servers with 1, and some give no
numbers.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Final, NamedTuple

__all__ = ["STREAM_ID", "WITHOUT_NUMBERS", "Position", "difference", "new_stream_id", "parse_position"]

_RANDOM_BYTES: Final = 15  # a multiple of 3: base64 without padding
STREAM_ID: Final = r"[A-Za-z0-9_-]{20}"
# The bound on the digits keeps a peer from making int() parse a huge number.
_POSITION: Final = re.compile(rf"({STREAM_ID}):(\d{{1,15}})", re.ASCII)

# Where the upstream gives no numbers, a client counts from 0, as OpenAI does.
WITHOUT_NUMBERS: Final = 1


class Position(NamedTuple):
    """A place in a stream: after the event with this number; 0 is before the first one."""

    stream: str
    number: int


def new_stream_id() -> str:
    """A new stream's id, which cannot be guessed."""
    return secrets.token_urlsafe(_RANDOM_BYTES)


def parse_position(text: str) -> Position | None:
    """Parse the id of an event, as a client sends it in Last-Event-ID; None where `text` is not one.

    >>> parse_position("AAAAAAAAAAAAAAAAAAAA:7"), parse_position("1764000000000-0")
    (Position(stream='AAAAAAAAAAAAAAAAAAAA', number=7), None)
    """
    match = _POSITION.fullmatch(text)
    return Position(match[1], int(match[2])) if match else None


def difference(event: bytes, number: int) -> int:
    r"""The relay's number of an event less the event's own; `event` is its fields.

    >>> difference(b'event: response.created\ndata: {"type":"response.created","sequence_number":0}', 1)
    1
    """
    data = b"".join(line[5:] for line in event.split(b"\n") if line.startswith(b"data:"))
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # RecursionError: thousands of opening brackets
        return WITHOUT_NUMBERS
    own = value.get("sequence_number") if isinstance(value, dict) else None
    return number - own if type(own) is int and 0 <= own < 10**15 else WITHOUT_NUMBERS
