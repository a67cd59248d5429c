"""One POST to a real receiver: what its answers mean, and what a bad one can do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from diagnostics.monitor.export.destination import Destination
from diagnostics.monitor.export.payload import Payload
from diagnostics.monitor.export.posting import Outcome, Receiver, retry_after
from tests.diagnostics.monitor.export.conftest import ProfileReceiver, Pushed, Reply
from tests.scripted import listening

SECRET = "hunter2hunter2"
PAYLOAD = Payload("0", b"profile", "application/octet-stream", (("name", "shop{worker=0}"),), (("X-Version", "1"),))
PATIENCE = 60.0


def post(
    url: str, payload: Payload = PAYLOAD, *, patience: float = PATIENCE, times: int = 1,
    objection: Callable[[bytes], str | None] = lambda answer: None,
) -> Outcome:  # fmt: skip
    async def posted() -> Outcome:
        receiver = Receiver(
            Destination(url, headers=(("Authorization", f"Bearer {SECRET}"),)), objection, patience=patience
        )
        try:
            for _ in range(times - 1):
                await receiver.post(payload)
            return await receiver.post(payload)
        finally:
            await receiver.close()

    return asyncio.run(posted())


def test_a_profile_is_posted_with_its_query_and_the_headers_that_are_set(receiver: ProfileReceiver) -> None:
    assert post(f"{receiver.url}/ingest").kind == "taken"
    (pushed,) = receiver.pushed
    assert (pushed.path, pushed.query, pushed.body) == ("/ingest", {"name": "shop{worker=0}"}, b"profile")
    assert pushed.headers["authorization"] == f"Bearer {SECRET}"
    assert pushed.headers["x-version"] == "1"
    assert pushed.headers["content-type"] == "application/octet-stream"
    assert pushed.headers["user-agent"].startswith("highwater-diagnostics/")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, "taken"), (202, "taken"), (204, "taken"), (301, "refused"), (307, "refused"), (400, "refused"), (401, "refused"),
        (404, "refused"), (408, "again"), (413, "refused"), (422, "refused"), (429, "again"), (500, "again"), (501, "refused"),
        (502, "again"), (503, "again"), (504, "again"),
    ],
)  # fmt: skip
def test_what_a_status_means(receiver: ProfileReceiver, status: int, kind: str) -> None:
    # A redirect is not followed: it would lead the keys to whom the receiver names.
    receiver.reply = lambda pushed: Reply(status, headers=(("Location", f"{receiver.url}/elsewhere"),))
    outcome = post(f"{receiver.url}/ingest")
    assert outcome.kind == kind
    assert len(receiver.pushed) == 1
    if kind != "taken":
        assert outcome.cause == str(status)
        assert outcome.why == f"it answered {status}"


def test_how_long_to_wait_is_taken_from_the_answer(receiver: ProfileReceiver) -> None:
    receiver.reply = lambda pushed: Reply(429, headers=(("Retry-After", "7"),))
    assert post(receiver.url).after == 7.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None), ("", None), ("soon", None), ("-1", None), ("0", 0.0), ("120", 120.0), ("9" * 5000, 300.0), ("²", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0), ("Mon, 21 Sep 2026 14:15:20 GMT", 120.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300.0),
    ],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date_and_at_most_five_minutes(text: str | None, seconds: float | None) -> None:
    assert retry_after(text, 1_790_000_000.0) == seconds


def test_what_a_receiver_says_is_short_printable_and_without_our_keys(receiver: ProfileReceiver) -> None:
    said = f"\x1b[31mnot you: Bearer {SECRET}, nor {SECRET}\n".encode() + b"\xff" * 10 + b"x" * 100_000
    receiver.reply = lambda pushed: Reply(401, said)
    outcome = post(receiver.url)
    assert outcome.why.startswith("it answered 401: [31mnot you: ***, nor *** ")
    assert len(outcome.why) < 300
    assert SECRET not in outcome.why
    assert outcome.why.isprintable()


def test_an_answer_without_end_is_not_read_to_its_end(receiver: ProfileReceiver) -> None:
    receiver.reply = lambda pushed: Reply(200, b"x" * 10_000_000)
    outcome = post(receiver.url)
    assert (outcome.kind, outcome.cause) == ("refused", "answer")


def test_an_objection_in_a_200_refuses_the_profile(receiver: ProfileReceiver) -> None:
    receiver.reply = lambda pushed: Reply(200, b"two of them")
    seen: list[bytes] = []

    def objection(answer: bytes) -> str:
        seen.append(answer)
        return f"no room, {SECRET}"

    outcome = post(receiver.url, objection=objection)
    assert (outcome.kind, outcome.why) == ("refused", "no room, ***")
    assert seen == [b"two of them"]


def test_a_receiver_that_never_answers_is_given_up(receiver: ProfileReceiver) -> None:
    receiver.answers.clear()
    outcome = post(receiver.url, patience=0.3)
    assert (outcome.kind, outcome.cause) == ("again", "time")
    assert outcome.why.startswith("no answer within 0.3 s")


def test_an_answer_that_comes_byte_by_byte_does_not_outlast_the_deadline() -> None:
    """Each byte comes in time; all together they would not."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def scene() -> Outcome:
        async with listening(trickle) as port:
            receiver = Receiver(Destination(f"http://127.0.0.1:{port}/"), lambda answer: None, patience=0.5)
            try:
                return await receiver.post(PAYLOAD)
            finally:
                await receiver.close()

    assert asyncio.run(scene()).cause == "time"


@pytest.mark.parametrize(
    "says", [b"", b"HTTP/1.1 two hundred\r\n\r\n", b"\x16\x03\x01", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"]
)
def test_a_receiver_that_speaks_no_http_is_tried_again(says: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"profile")
        writer.write(says)
        writer.close()

    async def scene() -> Outcome:
        async with listening(speak) as port:
            receiver = Receiver(Destination(f"http://127.0.0.1:{port}/"), lambda answer: None, patience=PATIENCE)
            try:
                return await receiver.post(PAYLOAD)
            finally:
                await receiver.close()

    outcome = asyncio.run(scene())
    assert outcome.kind == "again"
    assert outcome.why


def test_nobody_there_is_tried_again_and_said() -> None:
    with socket.socket() as taken:  # bound, and never listening
        taken.bind(("127.0.0.1", 0))
        outcome = post(f"http://127.0.0.1:{taken.getsockname()[1]}/ingest")
    assert (outcome.kind, outcome.cause) == ("again", "ConnectError")
    assert outcome.why


def test_a_connection_is_kept_and_one_that_was_closed_meanwhile_is_made_anew(receiver: ProfileReceiver) -> None:
    ports: set[Any] = set()

    def reply(pushed: Pushed) -> Reply:
        ports.add(pushed.headers["host"])
        return Reply(headers=(("Connection", "close"),) if len(receiver.pushed) == 2 else ())

    receiver.reply = reply
    assert post(receiver.url, times=4).kind == "taken"
    assert len(receiver.pushed) == 4
