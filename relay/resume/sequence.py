"""From OpenAI's numbers of a response's events, their `sequence_number`, to the numbers that the relay gives them.

Both count every event of the stream, so that their difference is the same for all of them. It is not always 1: OpenAI begins
with 0, other servers with 1, and some give no numbers.
"""

from __future__ import annotations

import json

__all__ = ["WITHOUT_NUMBERS", "difference"]

# Where the upstream gives no numbers, a client counts from 0, as OpenAI does.
WITHOUT_NUMBERS = 1


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
