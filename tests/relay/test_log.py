"""The log: JSON that no value can break, and few lines where there is much to log."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.admission.rejection_log import REJECTION_SECONDS, Rejections
from relay.log import MAX_KINDS, JsonFormatter, TextFormatter
from relay.telemetry.sdk_warnings import LOG_INTERVAL_SECONDS, ThrottledWarnings


def line(message: str, **fields: object) -> logging.LogRecord:
    record = logging.LogRecord("relay.x", logging.INFO, __file__, 1, message, (), None)
    record.fields = fields
    return record


@pytest.mark.parametrize("hostile", ["a\nb", "\x1b[31m", "\u2028", "\ud800", '"}', "\x00"])
def test_nothing_breaks_a_line(hostile: str) -> None:
    text = JsonFormatter().format(line("x", name=hostile))
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["name"] == hostile


def test_json_has_the_time_in_utc_the_fields_and_the_exception() -> None:
    try:
        raise KeyError("x")
    except KeyError:
        record = line("failed", count=3)
        record.exc_info = sys.exc_info()
    told = json.loads(JsonFormatter().format(record))
    assert told.pop("time").endswith("+00:00")
    assert "KeyError" in told.pop("exception")
    assert told == {"level": "INFO", "logger": "relay.x", "message": "failed", "count": 3}


def test_text_has_the_fields_behind_the_message() -> None:
    text = TextFormatter().format(line("stream ended", outcome="completed", error="it fell silent", bytes_in=3))
    assert text.endswith("INFO relay.x: stream ended outcome=completed error='it fell silent' bytes_in=3")


def test_rejections_are_counted_not_listed(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    told = Rejections(clock=lambda: now)
    for reason in ["rate"] * 1000 + ["memory"]:
        told(reason)
    now += REJECTION_SECONDS
    told("rate")
    found = [(record.fields["reason"], record.fields["count"]) for record in caplog.records]  # type: ignore[attr-defined]
    assert found == [("rate", 1), ("memory", 1), ("rate", 1000)]


def test_a_complaint_about_headers_does_not_quote_them(caplog: pytest.LogCaptureFixture) -> None:
    with_key = ("a-secret-key",)
    ThrottledWarnings().emit(
        logging.LogRecord("opentelemetry.util.re", logging.WARNING, "", 1, "invalid: %s", with_key, None)
    )
    assert "invalid: (not shown)" in caplog.text
    assert "a-secret-key" not in caplog.text


def test_complaints_of_one_kind_are_passed_on_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    seldom = ThrottledWarnings(clock=lambda: now)
    for number in range(50):
        seldom.emit(
            logging.LogRecord("opentelemetry.x", logging.WARNING, "", 1, "it is %d times dead", (number,), None)
        )
    seldom.emit(logging.LogRecord("opentelemetry.x", logging.WARNING, "", 1, "the queue is full", (), None))
    now += LOG_INTERVAL_SECONDS
    seldom.emit(logging.LogRecord("opentelemetry.x", logging.WARNING, "", 1, "it is %d times dead", (51,), None))
    assert [message.split(" (")[0] for message in caplog.messages] == [
        "it is 0 times dead", "the queue is full", "it is 51 times dead",
    ]  # fmt: skip
    for number in range(1000):  # texts without a template
        seldom.emit(logging.LogRecord("opentelemetry.x", logging.WARNING, "", 1, f"{number} is odd", (), None))
    assert len(caplog.messages) <= 3 + MAX_KINDS


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.text(),
        st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers() | st.text())),
    )
)
def test_any_fields_are_written_as_json_writes_them(fields: dict[str, Any]) -> None:
    given = {"name": "relay", "levelname": "INFO", "msg": "said", "created": 12.3456}
    record = logging.makeLogRecord({**given, "fields": {**fields, "path": Path("/x")}})
    head = {"time": "1970-01-01T00:00:12.345+00:00", "level": "INFO", "logger": "relay", "message": "said"}
    assert JsonFormatter().format(record) == json.dumps({**head, **fields, "path": "/x"})


def test_the_time_of_a_line_is_that_of_its_record() -> None:
    formatter = JsonFormatter()
    for at in (0.0, 0.9999, 59.9999, 60.0, 1e9 + 0.0005, 1e9 - 1, 1e9 + 0.001):
        record = logging.makeLogRecord({"created": at})
        expected = datetime.fromtimestamp(at, UTC)
        assert abs(datetime.fromisoformat(json.loads(formatter.format(record))["time"]) - expected) <= timedelta(
            milliseconds=1
        )
