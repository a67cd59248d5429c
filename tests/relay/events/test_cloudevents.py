"""A stream's end as a CloudEvent, and the file of librdkafka's properties."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import relay.events.cloudevents
from diagnostics import StreamLedger
from relay.errors import OverloadedError
from relay.events.cloudevents import SCHEMA, TYPE, encode_ending, source_of
from relay.events.options import parse_properties
from relay.stream.ending import Ending

SCHEMA_FILE = Path(relay.events.cloudevents.__file__).with_name("stream_ended.schema.json")
TRACEPARENT = f"00-{32 * 'a'}-{16 * 'b'}-01"


def read(event: bytes) -> dict[str, Any]:
    return dict(json.loads(event))


def schema() -> Any:
    return json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))


def test_the_attributes_are_those_of_the_specification() -> None:
    ending = Ending("completed", route="/stream", output_tokens=3)
    first, second = (
        read(encode_ending(ending, source=source_of("pod 7"), at=1764105600.25, traceparent=TRACEPARENT))
        for _ in range(2)
    )
    assert first.pop("id") != second.pop("id")
    assert first == second == {
        "specversion": "1.0",
        "source": "/highwater/relay/pod%207",
        "type": TYPE,
        "subject": "/stream",
        "time": "2025-11-25T21:20:00.250Z",
        "datacontenttype": "application/json",
        "dataschema": SCHEMA,
        "traceparent": TRACEPARENT,
        "data": {"route": "/stream", "outcome": "completed", "output_tokens": 3},
    }  # fmt: skip
    assert datetime.fromisoformat(first["time"]) == datetime.fromtimestamp(1764105600.25, UTC)


@pytest.mark.parametrize("sent", ["", "gossip", TRACEPARENT + "-more", TRACEPARENT.upper(), "ff" + TRACEPARENT[2:]])
def test_what_a_caller_calls_its_trace_is_no_text_in_the_event(sent: str) -> None:
    assert "traceparent" not in read(encode_ending(Ending("completed"), source="/", at=0, traceparent=sent))


def test_the_sentence_of_an_error_stays_in_the_log() -> None:
    ledger = StreamLedger()
    with ledger.stream("/stream") as record:
        ending = Ending.of("upstream_error", record=record, error=OverloadedError("the upstream said: secret", 1))
    event = encode_ending(ending, source="/", at=0)
    assert b"secret" not in event
    assert read(event)["data"]["error_type"] == "overloaded"


def test_the_schema_has_every_field_and_every_outcome() -> None:
    whole = Ending(
        "completed", "word", "sentence", 200, "/stream", 1.0, 0.5, 0.1, 1, 2, 3, 4, 5, dropped_events=6, input_tokens=7,
        output_tokens=8, mean_gap=0.1,
    )  # fmt: skip
    data = read(encode_ending(whole, source="/", at=0))["data"]
    jsonschema.validate(data, schema())
    assert data.keys() == schema()["properties"].keys()
    assert schema()["$id"] == SCHEMA
    routes = StreamLedger()
    with routes.stream("/x"):
        pass
    assert sorted(routes.to_json()["routes"]["/x"]["closed"]) == sorted(schema()["properties"]["outcome"]["enum"])


NAMES = st.from_regex(r"[a-z][a-z0-9_.]{0,20}", fullmatch=True)
VALUES = st.text(st.characters(exclude_categories=["Cc", "Zl", "Zp", "Zs", "Cs"]), max_size=20)


@given(st.dictionaries(NAMES, VALUES))
def test_properties_are_read_as_they_were_written(properties: dict[str, str]) -> None:
    text = "# a comment\n\n" + "".join(f"{name} = {value}\n" for name, value in properties.items())
    assert parse_properties(text, reserved=()) == properties


@given(st.text(st.sampled_from("ab=.# \n\r\u2028\x00é"), max_size=40))
def test_any_text_is_read_or_refused_without_a_value_in_the_message(text: str) -> None:
    refused = ""
    try:
        parse_properties(text.replace("=", "=hunter2"))
    except ValueError as error:
        refused = str(error)
    assert "hunter2" not in refused


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hunter2", "line 1"),
        ("\n=hunter2", "line 2"),
        ("SASL Password=hunter2", "line 1"),
        ("bootstrap.servers=hunter2", "bootstrap.servers is set by the relay"),
        ("linger.ms=1\nlinger.ms=hunter2", "linger.ms stands twice"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        parse_properties(text)
    assert "hunter2" not in str(refused.value)
