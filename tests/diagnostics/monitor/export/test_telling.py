"""The log says once that profiles are not taken, however many pushes fail."""

from __future__ import annotations

from typing import Any

from diagnostics.monitor.export.telling import Telling


def test_a_failure_is_told_once_and_so_is_its_end(caplog: Any) -> None:
    telling = Telling("http://receiver/ingest")
    for _ in range(100):
        telling.failed("ConnectError", "connection refused")
    telling.lost(3)
    telling.failed("503", "it answered 503")
    telling.taken()
    telling.taken()
    assert [record.getMessage() for record in caplog.records] == [
        "no live heap is taken by http://receiver/ingest: connection refused",
        "no live heap is taken by http://receiver/ingest: it answered 503",
        "live heaps are taken again by http://receiver/ingest; 3 were given up meanwhile",
    ]


def test_a_receiver_that_comes_and_goes_fills_no_log(caplog: Any) -> None:
    telling = Telling("http://receiver/ingest")
    for _ in range(1000):
        telling.failed("503", "it answered 503")
        telling.taken()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 8
    assert said[2] == "no live heap is taken by http://receiver/ingest, for the 10th time: it answered 503"


def test_reasons_without_number_are_counted_as_one(caplog: Any) -> None:
    telling = Telling("http://receiver/ingest")
    for number in range(500):
        telling.failed(f"Error{number}", "it differs each time")
        telling.taken()
    assert len(caplog.records) < 2 * 60
