"""`diagnostics load` against a real server in this process whose answers are known to the byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diagnostics import cli
from diagnostics.errors import UsageError
from diagnostics.proof.clients.address import Address, RequestMessage, read_headers
from diagnostics.proof.clients.fleet.launch import FleetResult, Share
from diagnostics.proof.clients.fleet.order import Order
from diagnostics.proof.clients.fleet.report import warnings
from diagnostics.proof.clients.mix import Behavior, NeverReads, Resets, Slow
from diagnostics.proof.clients.tally import Tally
from tests.scripted import DONE, END, HEAD, Script, chunk, events, serving


def load(script: Script, tmp_path: Path, *options: str, path: str = "/stream") -> tuple[int, dict[str, Any]]:
    numbers = tmp_path / "numbers.json"
    with serving(script) as (url, _, _):
        code = cli.main(["load", url + path, "--json", str(numbers), *options])
    return code, json.loads(numbers.read_text(encoding="utf-8"))


async def good(writer: asyncio.StreamWriter, number: int) -> None:
    body = events(40) + DONE
    writer.write(HEAD + chunk(body[:1001]) + chunk(body[1001:]) + END)


async def without_end(writer: asyncio.StreamWriter, number: int) -> None:
    writer.write(HEAD)
    while True:
        writer.write(chunk(events(4)))
        await writer.drain()
        await asyncio.sleep(0.002)


def test_every_event_of_every_stream_is_counted_over_all_processes(tmp_path: Path) -> None:
    code, found = load(good, tmp_path, "-c", "4", "-n", "10", "-p", "2")
    tally = found["tally"]
    assert code == 0
    assert tally["outcomes"] == {"completed": 10}
    assert (tally["streams"], tally["events"], tally["done_seen"]) == (10, 410, 10)
    assert (tally["sampled"], tally["not_json"]) == (10, 0)
    # The server closes after each answer without a word: a kept connection that turns out to be closed is no failure.
    assert (tally["connections"], tally["errors"]) == (10, {})
    assert tally["bytes"] == 10 * len(HEAD + chunk(events(40)[:1001]) + chunk((events(40) + DONE)[1001:]) + END)
    first_event = found["latency"]["first_event"]
    assert 0 <= first_event["p50"] <= first_event["max"]  # on a fast machine it is too short to be told from 0
    assert tally["first_event"]["count"] == 10
    assert tally["gaps"]["count"] == 400
    assert len(found["client"]["processes"]) == 2


def test_each_kind_of_client_does_what_its_name_says(tmp_path: Path) -> None:
    options = ("-c", "10", "-n", "10", "--seconds", "1", "--hold", "0.3", "--slow-rate", "4000")
    code, found = load(
        without_end, tmp_path, *options, "--slow", "20%", "--leave", "0.2", "--never", "20%", "--reset", "20%"
    )
    assert code == 0
    # Two leave, two reset, two never read: six end as they wish; the slow and the fast ones are there when time is up.
    assert found["tally"]["outcomes"] == {"left": 6, "time_up": 4}
    assert found["tally"]["errors"] == {}


def test_the_slow_keep_their_pace_and_the_report_names_shares_as_the_options_do(tmp_path: Path) -> None:
    options = ("-c", "1", "-n", "1", "--seconds", "1", "--slow", "100%", "--slow-rate", "10000")
    _, found = load(without_end, tmp_path, *options)
    assert found["order"]["shares"] == {"slow": 1.0}
    # Its receive buffer comes at once, and then what its pace gives.
    assert 1000 <= found["tally"]["bytes"] <= 10_000 * found["seconds"] + 2 * 4096


def test_one_who_breaks_the_connection_resets_it(eventually: Any) -> None:
    with serving(without_end) as (url, _, endings):
        assert cli.main(["load", url, "-c", "1", "-n", "1", "--reset", "100%", "--after", "2"]) == 0
        eventually(lambda: endings)  # the server learns of it with its next write
    assert endings == ["reset"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "status_503"),
        (b"HELLO\r\n\r\n", "malformed"),
        (HEAD + chunk(events(1)), "cut_off"),
        (b"", "cut_off"),
    ],
)
def test_what_fails_is_counted_by_its_kind(
    answer: bytes, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def script(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(answer)

    code, found = load(script, tmp_path, "-c", "2", "-n", "3")
    assert code == (1 if answer else 3)
    assert found["tally"]["errors"] == {error: 3}
    assert found["tally"]["outcomes"] == {"failed": 3}


def test_a_stream_that_falls_silent_has_failed(tmp_path: Path) -> None:
    async def script(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HEAD + chunk(events(1)))
        await asyncio.sleep(60)

    code, found = load(script, tmp_path, "-c", "1", "-n", "1", "--patience", "0.3")
    assert code == 1
    assert found["tally"]["errors"] == {"silent": 1}


def test_an_answer_that_ends_with_its_connection_is_complete(tmp_path: Path) -> None:
    async def script(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + events(3) + DONE)

    code, found = load(script, tmp_path, "-c", "1", "-n", "2")
    assert code == 0
    assert found["tally"]["outcomes"] == {"completed": 2}
    assert found["tally"]["done_seen"] == 2


def test_data_that_is_no_json_is_seen(tmp_path: Path) -> None:
    async def script(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HEAD + chunk(b'data: {"cut": tru\n\n') + END)

    _, found = load(script, tmp_path, "-c", "1", "-n", "3")
    assert (found["tally"]["sampled"], found["tally"]["not_json"]) == (3, 3)


def test_with_a_rate_the_streams_that_waited_for_a_stalled_one_are_charged_for_it(tmp_path: Path) -> None:
    """Ten streams are due within 0.1 s; the first takes 1 s and holds the only connection."""

    async def script(writer: asyncio.StreamWriter, number: int) -> None:
        if number == 0:
            await asyncio.sleep(1.0)
        await good(writer, number)

    code, found = load(script, tmp_path, "-c", "1", "-n", "10", "--rate", "100")
    assert code == 0
    assert found["latency"]["first_event"]["p50"] >= 0.85
    assert found["tally"]["asked_late"] >= 8
    _, closed = load(script, tmp_path, "-c", "1", "-n", "10")
    assert closed["latency"]["first_event"]["p50"] < found["latency"]["first_event"]["p50"]


def test_the_request_is_what_was_asked_for(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_bytes(b'{"stream": true}')
    with serving(good) as (url, requests, _):
        words = ["--body", str(body), "--header", "Authorization: Bearer x", "--header", "accept:*/*"]
        assert cli.main(["load", f"{url}/v1/chat?x=1", "-c", "1", "-n", "1", *words]) == 0
    lines = requests[0].decode().split("\r\n")
    assert lines[0] == "POST /v1/chat?x=1 HTTP/1.1"
    assert {"authorization: Bearer x", "accept: */*", "content-length: 16"} <= set(lines)


def test_nobody_listening_is_the_targets_failure(
    free_port: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["load", f"http://127.0.0.1:{free_port()}/", "-c", "2", "-n", "2"]) == 3
    assert "answered none of 2 streams (2 x connect)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ftp://x/"], "not an http or https URL"),
        (["http://127.0.0.1:1/", "--slow", "60%", "--leave", "60%"], "add up to 120%"),
        (["http://127.0.0.1:1/", "-p", "3", "-c", "2"], "3 processes for 2 connections"),
        (["http://127.0.0.1:1/", "--header", "nonsense"], "is not NAME:VALUE"),
        (["http://127.0.0.1:1/", "--body", "/no/such/file"], "cannot read /no/such/file"),
    ],
)
def test_bad_usage_says_what_is_wrong(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["load", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_client_that_had_no_core_says_so() -> None:
    order = Order(Address.of("http://127.0.0.1/"), RequestMessage())
    for share, limited in ((Share(0.9, 0.0), True), (Share(0.4, 0.5), True), (Share(0.5, 0.1), False)):
        result = FleetResult(order, Tally(events=9), 1.0, (Share(0.1, 0.0), share))
        assert result.client_limited is limited
        # Where nothing came, the client was not what it waited for.
        assert not FleetResult(order, Tally(), 1.0, (Share(0.1, 0.0), share)).client_limited
        assert any("the client itself was the limit" in line for line in warnings(result)) is limited


def test_shares_are_kept_exactly_and_each_process_knows_its_order() -> None:
    slow, resets = Slow(bytes_per_second=1024), Resets(after_events=5)
    shares: dict[Behavior, float] = {slow: 0.1, resets: 0.01, NeverReads(after_seconds=0.5): 0.2}
    order = Order(
        Address.of("https://[::1]:8443/x?y=z"), RequestMessage("POST", b"\xff\x00", {"a": "b"}), shares=shares
    )
    read = Order.from_json(json.loads(json.dumps(order.to_json())))
    assert read == order
    behaviors = [read.behavior(number) for number in range(1000)]
    assert abs(behaviors.count(slow) - 100) <= 2
    assert abs(behaviors.count(resets) - 10) <= 2


def test_a_host_header_names_the_port_unless_it_is_the_schemes_own() -> None:
    assert Address.of("https://example.org").authority == "example.org"
    assert Address.of("http://[::1]:8080/").authority == "[::1]:8080"
    with pytest.raises(UsageError, match="cannot stand in a request line"):
        Address.of("http://127.0.0.1/a b")
    with pytest.raises(UsageError, match="is not NAME:VALUE"):
        read_headers(["a: b\r\nc: d"])
