"""A webhook against a real server: what is sent, when it is sent again, and what is never done."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from diagnostics.errors import DiagnosticsError, TargetError
from diagnostics.monitor.rules.actions.deliveries import Deliveries, Delivery
from diagnostics.monitor.rules.actions.messages import SIGNATURE, Facts, verified
from diagnostics.monitor.rules.actions.webhook import post
from diagnostics.monitor.rules.rule import Command, Webhook

FACTS = Facts(
    delivery="0123456789abcdef", rule="ratio", says="rss_bytes > 5 for 1 s: 7", trigger="when", value=7.0, bound=5.0,
    worker="0", pid=17, time=1_800_000_000.25, host="pod-1",
)  # fmt: skip


def test_it_posts_signed_json_once(receiver: Any, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"s3cret\n")
    asyncio.run(post(Webhook(url=f"{receiver.url}/hook?x=1", key_file=str(key)), FACTS))
    ((path, headers, body),) = receiver.received
    assert path == "/hook?x=1"
    assert json.loads(body)["rule"] == "ratio"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Highwater-Delivery"] == FACTS.delivery
    assert verified(b"s3cret", headers[SIGNATURE], body, time.time())


def test_without_a_key_there_is_no_signature(receiver: Any) -> None:
    asyncio.run(post(Webhook(url=receiver.url), FACTS))
    assert SIGNATURE not in receiver.received[0][1]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again_with_the_same_id(receiver: Any, no_pauses: list[float], status: int) -> None:
    receiver.answers += [(status, {}), (status, {})]
    asyncio.run(post(Webhook(url=receiver.url, attempts=3), FACTS))
    assert {headers["X-Highwater-Delivery"] for _, headers, _ in receiver.received} == {FACTS.delivery}
    assert len(receiver.received) == 3
    assert no_pauses[0] < no_pauses[1]


def test_the_receiver_says_how_long_to_wait_within_reason(receiver: Any, no_pauses: list[float]) -> None:
    receiver.answers += [(429, {"Retry-After": "7"}), (429, {"Retry-After": "9999"}), (429, {"Retry-After": "soon"})]
    asyncio.run(post(Webhook(url=receiver.url, attempts=4), FACTS))
    assert 5 <= no_pauses[0] <= 7
    assert 20 <= no_pauses[1] <= 30
    assert no_pauses[2] <= 30


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404])
def test_what_will_not_change_is_asked_once_and_no_redirect_is_followed(
    receiver: Any, no_pauses: list[float], status: int
) -> None:
    receiver.answers += [(status, {"Location": f"{receiver.url}/elsewhere"})]
    with pytest.raises(TargetError, match=f"was asked once: status {status}") as caught:
        asyncio.run(post(Webhook(url=f"{receiver.url}/T/secret?token=x"), FACTS))
    assert [path for path, _, _ in receiver.received] == ["/T/secret?token=x"]
    assert "secret" not in str(caught.value)
    assert no_pauses == []


def test_attempts_and_their_time_have_an_end(receiver: Any, no_pauses: list[float], free_port: Any) -> None:
    receiver.answers += [(500, {})] * 9
    with pytest.raises(TargetError, match="was asked 2 times: status 500"):
        asyncio.run(post(Webhook(url=receiver.url, attempts=2), FACTS))
    with pytest.raises(TargetError, match="was asked 2 times: no connection"):
        asyncio.run(post(Webhook(url=f"http://127.0.0.1:{free_port()}/", attempts=2), FACTS))
    receiver.holds = True
    with pytest.raises(TargetError, match=r"was asked once: no answer within 0\.2 s"):
        asyncio.run(post(Webhook(url=receiver.url, attempts=1, timeout=0.2), FACTS))


@pytest.mark.parametrize(
    ("webhook", "says"),
    [
        (Webhook(url_env="HOOK"), "the variable HOOK is not set"),
        (Webhook(url_env="BAD"), "the variable BAD has no http or https address"),
        (Webhook(url="http://127.0.0.1:1/", key_env="KEY"), "the variable KEY is not set"),
        (Webhook(url="http://127.0.0.1:1/", key_file="/nonexistent/key"), "the key file /nonexistent/key cannot be read"),
        (Webhook(url="http://127.0.0.1:1/", key_file="/dev/null"), "the key file /dev/null has 0 bytes"),
    ],
)  # fmt: skip
def test_what_is_not_there_any_more_is_told(webhook: Webhook, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAD", "file:///etc/passwd?secret")
    monkeypatch.delenv("HOOK", raising=False)
    monkeypatch.delenv("KEY", raising=False)
    with pytest.raises(DiagnosticsError, match=says) as caught:
        asyncio.run(post(webhook, FACTS))
    assert "secret" not in str(caught.value)


# The queue


def test_the_queue_is_bounded_and_what_finds_it_full_is_dropped(receiver: Any) -> None:
    receiver.holds = True
    ended: list[tuple[str, str | None]] = []
    webhook = Webhook(url=receiver.url, attempts=1, timeout=50)

    async def flood() -> None:
        deliveries = Deliveries()
        running = asyncio.create_task(deliveries.run())
        for _ in range(104):
            deliveries.put(Delivery(webhook, FACTS, lambda *how: ended.append(how)))
            await asyncio.sleep(0)  # four are taken out of it at once
        assert ended == []
        deliveries.put(Delivery(webhook, FACTS, lambda *how: ended.append(how)))
        assert ended == [("dropped", "100 others wait to be sent")]
        receiver.holds = False
        receiver.released.set()
        while len(ended) < 105:
            await asyncio.sleep(0.01)
        await deliveries.finish()
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(flood())
    assert [how for how, _ in ended].count("done") == 104


def test_one_that_fails_does_not_end_the_queue(receiver: Any) -> None:
    ended: list[tuple[str, str | None]] = []

    async def both() -> None:
        deliveries = Deliveries()
        running = asyncio.create_task(deliveries.run())
        for action in (
            Webhook(url_env="NOT_SET_ANYWHERE"),
            Command(("/nonexistent/program",)),
            Webhook(url=receiver.url),
        ):
            deliveries.put(Delivery(action, FACTS, lambda *how: ended.append(how)))
        while len(ended) < 3:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(both())
    assert sorted(how for how, _ in ended) == ["done", "failed", "failed"]
