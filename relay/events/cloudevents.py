"""The facts of a stream that has ended as a CloudEvent 1.0 in structured mode: one JSON object, attributes and data together.

The law of this file: numbers and fixed words, as in stream/ending.py. The attributes are those of the CloudEvents specification
1.0.2 and of its Distributed Tracing extension (`traceparent`); `stream_ended.schema.json` describes the data.
"""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from ..stream.ending import Ending

__all__ = ["CONTENT_TYPE", "SCHEMA", "TYPE", "encode_ending", "source_of"]

# The media type of an event in structured mode; in Kafka it is the header `content-type` of the message.
CONTENT_TYPE: Final = "application/cloudevents+json; charset=UTF-8"
TYPE: Final = "highwater.relay.stream.ended"
# A name for the data's schema, not an address. It changes where a field goes or changes its meaning, not where one is added.
SCHEMA: Final = "urn:highwater:relay:stream-ended:1"

# A caller may have sent it: no other text passes.
_TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def source_of(host: str) -> str:
    """The URI reference of the relay that runs on this host.

    >>> source_of("relay-7c9f-x2x")
    '/highwater/relay/relay-7c9f-x2x'
    """
    return f"/highwater/relay/{quote(host, safe='')}"


def encode_ending(ending: Ending, *, source: str, at: float, traceparent: str | None = None) -> bytes:
    """The event of a stream that has ended, UTF-8 JSON.

    at            when it ended, in seconds since 1970
    traceparent   the trace and the span of the stream in W3C Trace Context's form, left out where it has another; None where
                  there is no trace
    """
    facts = ending.fields()
    facts.pop("error", None)  # a sentence, which may quote what an upstream sent
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": source,
        "type": TYPE,
        "time": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "dataschema": SCHEMA,
    }
    if ending.route is not None:
        event["subject"] = ending.route
    if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
        event["traceparent"] = traceparent
    event["data"] = facts
    return json.dumps(event, separators=(",", ":")).encode()
