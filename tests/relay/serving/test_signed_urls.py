"""Signed URLs over HTTP: what a browser's EventSource does with them, at two relays."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from relay.admission.keys import hash_of
from tests.resuming import CHAT, Resumer, part, whole

Served = Any  # the fixtures are typed in conftest.py
Start = Callable[..., Served]
Subscribe = Callable[..., Any]
Eventually = Callable[..., None]

APP, OTHER = "app-" + "x" * 40, "other-" + "y" * 40
SECRET = "a-secret-of-signed-urls-0123456789"
SETTINGS = {
    "RELAY_CLIENT_KEYS": f"app:generate+publish+subscribe=news:{hash_of(APP.encode())},"
    f"other:generate+subscribe:{hash_of(OTHER.encode())}",
    "RELAY_URL_SECRETS": SECRET,
    "RELAY_RESUME": "memory",
    "RELAY_HEARTBEAT_SECONDS": "0.2",
}
NEWS = "/v1/topics/news"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def sign(relay: Served, key: str = APP, **wanted: Any) -> Any:
    return relay.ask("POST", "/v1/signed-urls", json.dumps(wanted).encode(), bearer(key))


def url_of(relay: Served, **wanted: Any) -> str:
    answer = sign(relay, **wanted)
    assert answer.status == 201, answer.body
    assert answer.headers["cache-control"] == "no-store"
    return str(json.loads(answer.body)["url"])


@pytest.fixture(scope="module")
def signing(start_shared: Start) -> Served:
    return start_shared("--no-diagnostics", announced=2, **SETTINGS)


def test_an_event_source_subscribes_without_a_key_and_at_another_relay(
    signing: Served, start: Start, subscribe: Subscribe, eventually: Eventually
) -> None:
    # While the secret is being replaced: this one has the new one already, and the old one still.
    another = start("--no-diagnostics", announced=2, **{**SETTINGS, "RELAY_URL_SECRETS": f"{'n' * 40},{SECRET}"})
    url = url_of(signing, topic="news")
    for relay, asked in ((signing, url), (another, url), (another, url_of(another, topic="news"))):
        assert relay.ask("POST", NEWS, b'"hello"', bearer(APP)).status == 201
        one = subscribe(relay.url + asked, last_event_id="0-0")
        eventually(lambda one=one: one.data[-1:] == ['"hello"'])
        one.stop()
    assert signing.get(url_of(another, topic="news")).error["code"] == "invalid_signature"
    assert signing.ask("POST", url, b"1", {}).error["code"] == "invalid_signature"
    assert signing.get(url.replace("news", "other")).error["code"] == "invalid_signature"
    # A key in the header is what counts where there is one.
    assert signing.get(url, Authorization="Bearer wrong").status == 401


def test_an_event_source_gets_the_rest_of_its_keys_stream(signing: Served) -> None:
    client = Resumer(CHAT, "sim:events=40,pace=5,size=50,first=0", bearer(APP))
    client.read(signing.url, 1000)
    client.headers = {}
    url = url_of(signing, stream=client.stream)
    # As EventSource comes back: to its URL, with the id of its last event.
    rest = whole(signing.url, url, Last_Event_ID=client.last_event_id)
    assert [event.id for event in client.events + rest.events] == [f"{client.stream}:{n}" for n in range(1, 44)]
    assert whole(signing.url, url, Last_Event_ID=rest.events[-1].id).status == 204, "an EventSource stops"
    assert whole(signing.url, f"{url}&last_event_id={client.last_event_id}").events == rest.events
    # The URL of another key is signed without a look at the stream, and brings nothing.
    theirs = json.loads(sign(signing, OTHER, stream=client.stream).body)["url"]
    assert whole(signing.url, theirs).status == 404


def test_an_open_stream_outlives_its_url_and_a_reconnection_does_not(
    signing: Served, eventually: Eventually, subscribe: Subscribe
) -> None:
    relay = signing
    url = url_of(relay, topic="news", seconds=1)
    one = subscribe(relay.url + url)
    eventually(lambda: one.raw)

    def comes_back() -> tuple[int, str]:
        """The status for an EventSource that comes back, and the code of the error."""
        with part(relay.url, "GET", url, headers={"Last-Event-ID": "0-0"}) as (got, response):
            got.raw = b"" if got.status == 200 else response.read()
            return got.status, got.error["code"] if got.raw else ""

    eventually(lambda: comes_back() == (403, "url_expired"))
    assert relay.ask("POST", NEWS, b'"late"', bearer(APP)).status == 201
    eventually(lambda: one.data == ['"late"'])
    one.stop()
    fresh = subscribe(f"{relay.url}{url_of(relay, topic='news')}&last_event_id=0-0")
    eventually(lambda: fresh.data[-1:] == ['"late"'])


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({}, None),
        ({"topic": "news", "stream": "A" * 20}, None),
        ({"topic": "news", "method": "POST"}, None),
        ({"topic": "a/b"}, "topic"),
        ({"topic": "news\n"}, "topic"),
        ({"topic": ["news"]}, "topic"),
        ({"stream": "short"}, "stream"),
        ({"topic": "news", "seconds": 0}, "seconds"),
        ({"topic": "news", "seconds": 61}, "seconds"),
        ({"topic": "news", "seconds": True}, "seconds"),
        ({"topic": "news", "seconds": 1e9}, "seconds"),
    ],
)
def test_what_cannot_be_signed_is_refused(signing: Served, wanted: dict[str, Any], param: str | None) -> None:
    answer = sign(signing, **wanted)
    assert (answer.status, answer.error["param"]) == (400, param)


def test_nobody_signs_what_he_may_not_ask_for(signing: Served) -> None:
    assert sign(signing, topic="other").error["code"] == "topic_forbidden"
    assert signing.ask("POST", "/v1/signed-urls", b'{"topic": "news"}', {}).status == 401
    # With the signature of a URL, another one is not made.
    query = urlsplit(url_of(signing, topic="news")).query
    assert signing.ask("POST", f"/v1/signed-urls?{query}", b'{"topic": "news"}', {}).status == 403
