"""A probe measures what a scripted server does, and its verdicts name what is wrong, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics import cli
from diagnostics.proof.clients.address import Address
from diagnostics.proof.clients.eventscan import EventScan
from diagnostics.proof.clients.probe import Arrival, Probe
from diagnostics.proof.clients.verdicts import ProbeLevel, judge
from tests.scripted import DONE, END, HEAD, Script, chunk, events, serving

RIGHT = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    b"cache-control: no-store\r\nx-accel-buffering: no\r\n"
)


def probed(script: Script, tmp_path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    numbers = tmp_path / "probe.json"
    with serving(script) as (url, _, _):
        code = cli.main(["probe", url + "/stream", "--json", str(numbers), *options])
    return code, json.loads(numbers.read_text(encoding="utf-8"))


def levels(found: dict[str, Any]) -> dict[str, str]:
    return {verdict["subject"]: verdict["level"] for verdict in found["verdicts"]}


def test_a_stream_as_it_should_be_has_nothing_to_complain_about(tmp_path: Path) -> None:
    async def script(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(RIGHT + b"\r\n" + chunk(b": hello\n\n"))
        for event in range(8):
            writer.write(chunk(b"id: %d\ndata: {}\n\n" % event))
            await writer.drain()
            await asyncio.sleep(0.03)
        writer.write(chunk(DONE) + END)

    code, found = probed(script, tmp_path)
    assert code == 0
    assert set(levels(found).values()) == {"good"}
    assert (found["events"], found["comments"], found["fields"]) == (9, 1, ["data", "id"])
    assert found["done_seen"]
    assert found["ended"] == "completed"
    assert found["gaps"]["count"] == 8
    assert found["gaps"]["p50"] >= 0.02
    assert found["first_byte_seconds"] <= found["first_event_seconds"]


def test_events_that_come_together_after_a_silence_look_buffered(tmp_path: Path) -> None:
    async def script(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(RIGHT + b"server: nginx/1.22.1\r\n\r\n")
        await asyncio.sleep(0.5)
        writer.write(chunk(events(30)) + END)

    code, found = probed(script, tmp_path)
    assert code == 1
    assert levels(found)["buffering"] == "bad"
    (verdict,) = [verdict for verdict in found["verdicts"] if verdict["subject"] == "buffering"]
    assert "30 events came together after " in verdict["finding"]
    assert "nginx/1.22.1" in verdict["finding"]
    assert "proxy_buffering off" in verdict["remedy"]


@pytest.mark.parametrize(
    ("head", "body", "subject", "level"),
    [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n", b"", "status", "bad"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n", b"{}", "content-type", "bad"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 10\r\n",
            b"data: {}\n\n",
            "framing",
            "bad",
        ),
        (RIGHT, chunk(b"data: {}\n\n"), "end", "bad"),
        (RIGHT, chunk(b"hello\n\n") + END, "events", "bad"),
        (RIGHT.replace(b"no-store", b"public"), chunk(b"data: {}\n\n") + END, "cache-control", "hint"),
        (RIGHT, chunk(b"data: {}\n\n") + END, "buffering", "hint"),
    ],
)
def test_each_verdict_names_what_is_wrong_and_what_to_do(
    head: bytes, body: bytes, subject: str, level: str, tmp_path: Path
) -> None:
    async def script(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(head + b"\r\n" + body)

    code, found = probed(script, tmp_path)
    assert levels(found)[subject] == level
    assert code == (1 if level == "bad" else 0)
    assert all(verdict["remedy"] for verdict in found["verdicts"] if verdict["level"] != "good")


def test_a_compressed_stream_is_read_and_hinted_at(tmp_path: Path) -> None:
    async def script(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(RIGHT + b"content-encoding: gzip\r\n\r\n" + chunk(gzip.compress(events(7))) + END)

    _, found = probed(script, tmp_path)
    assert found["events"] == 7
    assert levels(found)["compression"] == "hint"


def test_it_stops_when_it_has_seen_enough_or_the_time_is_up(tmp_path: Path) -> None:
    async def script(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HEAD)
        while True:
            writer.write(chunk(events(1)))
            await writer.drain()
            await asyncio.sleep(0.02)

    _, found = probed(script, tmp_path, "--events", "5")
    assert (found["ended"], found["events"]) == ("enough", 5)
    _, found = probed(script, tmp_path, "--seconds", "2")
    assert found["ended"] == "time_up"


def test_a_service_that_says_nothing_is_the_targets_failure(capsys: pytest.CaptureFixture[str]) -> None:
    async def script(writer: asyncio.StreamWriter, number: int) -> None:
        await asyncio.sleep(60)

    with serving(script) as (url, _, _):
        assert cli.main(["probe", url, "--seconds", "0.3"]) == 3
    assert "sent nothing" in capsys.readouterr().err


def test_nobody_there_is_the_targets_failure(free_port: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", f"http://127.0.0.1:{free_port()}/"]) == 3
    assert "nothing accepts connections" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arrivals", "level"),
    [
        # One by one, each after the other: a model that writes.
        ([(0.5 + 0.05 * n, 1) for n in range(20)], ProbeLevel.GOOD),
        # A burst at once, from a service that had it all: no silence, nothing was held.
        ([(0.01, 20)], ProbeLevel.GOOD),
        # A model that thinks for a second, then writes: its first events do not come together.
        ([(1.0 + 0.04 * n, 1) for n in range(20)], ProbeLevel.GOOD),
        # A buffer of 4 KiB fills, again and again.
        ([(1.0 * n, 10) for n in range(1, 4)], ProbeLevel.BAD),
        # The same in several reads.
        ([(1.0 * n + 0.001 * part, 5) for n in range(1, 4) for part in range(3)], ProbeLevel.BAD),
        # One burst among many events that came alone.
        ([(0.05 * n, 1) for n in range(1, 40)] + [(3.0, 6)], ProbeLevel.GOOD),
    ],
)
def test_buffering_is_told_from_the_pattern_of_arrivals(arrivals: list[tuple[float, int]], level: ProbeLevel) -> None:
    found = Probe(
        Address.of("http://127.0.0.1/"),
        status=200,
        http_version="1.1",
        headers={"x-accel-buffering": "no", "content-type": "text/event-stream"},
        arrivals=[Arrival(time, 100, count) for time, count in arrivals],
        events=sum(count for _, count in arrivals),
    )
    assert {verdict.level for verdict in judge(found) if verdict.subject == "buffering"} == {level}


@given(
    st.lists(
        st.sampled_from(
            [b"data: {}\n", b"data:[DONE]\r\n", b"id: 1\r", b"\n", b"\r\n", b"\r", b": ping\n", b"data: x\n"]
        ),
        max_size=20,
    ),
    st.lists(st.integers(0, 160), max_size=8),
)
def test_events_are_read_alike_wherever_the_bytes_are_cut(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(lines)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    whole, piecewise, bytewise = EventScan(), EventScan(), EventScan()
    whole.feed(data)
    for start, end in pairwise(places):
        piecewise.feed(data[start:end])
    for byte in data:
        bytewise.feed(bytes([byte]))
    seen = [(s.events, s.comments, s.fields, s.done, s.not_json) for s in (whole, piecewise, bytewise)]
    assert seen[0] == seen[1] == seen[2]


def test_a_line_without_end_is_not_collected_for_ever() -> None:
    scan = EventScan()
    for _ in range(80):
        scan.feed(b"x" * 65536)
    assert scan.too_long
