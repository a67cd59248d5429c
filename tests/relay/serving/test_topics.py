"""Topics as a client uses them: publish, subscribe, resume, and be too slow."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from relay.admission.keys import hash_of

Served = Any  # the fixtures are typed in the conftest.py files
Start = Any
Subscribe = Any
Eventually = Callable[..., Any]

TOPIC = "/v1/topics/{topic}"
names = (f"/v1/topics/t{number}" for number in count())


@pytest.fixture(scope="module")
def hub(start_shared: Start) -> Served:
    return start_shared(
        "--diagnostics", "127.0.0.1:0", "--topic-history-events", "50", "--topic-event-bytes", "8192",
        "--log-level", "debug",
    )  # fmt: skip


@pytest.fixture
def topic() -> str:
    return next(names)


def publish(relay: Served, path: str, data: Any, **headers: str) -> dict[str, Any]:
    answer = relay.ask("POST", path, json.dumps(data).encode(), headers)
    assert answer.status == 201, answer.body
    return dict(json.loads(answer.body))


def test_events_come_to_all_who_listen_with_their_ids_and_names(
    hub: Served, topic: str, subscribe: Subscribe, eventually: Eventually
) -> None:
    both = [subscribe(hub.url + topic) for _ in range(2)]
    eventually(lambda: all(one.raw for one in both))
    first = publish(hub, topic, {"n": 1})
    text = hub.ask(
        "POST", f"{topic}?event=note", b"two\r\nlines \xc3\xa4", {"Content-Type": "text/plain; charset=utf-8"}
    )
    assert text.status == 201
    eventually(lambda: all(len(one.events) == 2 for one in both))
    for one in both:
        assert [(event.event, event.data) for event in one.events] == [
            ("message", '{"n": 1}'),
            ("note", "two\nlines ä"),
        ]
        assert [event.id for event in one.events] == [first["id"], json.loads(text.body)["id"]]
        assert one.raw.startswith(b"retry: 3000\nid: ")


def test_whoever_comes_back_gets_what_it_missed_and_nothing_twice(
    hub: Served, topic: str, subscribe: Subscribe, eventually: Eventually
) -> None:
    once = subscribe(hub.url + topic)
    eventually(lambda: once.raw)
    publish(hub, topic, 0)
    eventually(lambda: once.data == ["0"])
    once.stop()
    for number in (1, 2):
        publish(hub, topic, number)
    again = subscribe(hub.url + topic, last_event_id=once.last_event_id)
    eventually(lambda: again.data == ["1", "2"])
    publish(hub, topic, 3)
    eventually(lambda: again.data == ["1", "2", "3"])
    assert again.told("gap") == []
    # A page's first request has no header: it may name the id in its URL; the header of a later one counts more.
    by_url = subscribe(f"{hub.url}{topic}?last_event_id={again.events[0].id}")
    eventually(lambda: by_url.data == ["2", "3"])
    newest = subscribe(f"{hub.url}{topic}?last_event_id={again.events[0].id}", last_event_id=again.events[1].id)
    eventually(lambda: newest.data == ["3"])


def test_even_one_that_saw_no_event_misses_none(
    hub: Served, topic: str, subscribe: Subscribe, eventually: Eventually
) -> None:
    quiet = subscribe(hub.url + topic)
    eventually(lambda: quiet.raw.endswith(b"\n\n"))
    quiet.stop()
    assert quiet.events == []
    publish(hub, topic, "missed")
    again = subscribe(hub.url + topic, last_event_id=quiet.last_event_id)
    eventually(lambda: again.data == ['"missed"'])
    assert again.told("gap") == []


def test_an_id_that_is_not_kept_any_more_is_told_of(
    hub: Served, topic: str, subscribe: Subscribe, eventually: Eventually
) -> None:
    ids = [publish(hub, topic, number)["id"] for number in range(60)]
    late = subscribe(hub.url + topic, last_event_id=ids[3])
    eventually(lambda: late.data == [str(number) for number in range(10, 60)])
    assert late.told("gap") == [{"after": ids[3], "kept_from": ids[10]}]
    in_time = subscribe(hub.url + topic, last_event_id=ids[9])
    eventually(lambda: in_time.data == late.data)
    assert in_time.told("gap") == []


@pytest.mark.parametrize(
    ("path", "content_type", "body", "status", "code"),
    [
        ("", "application/json", b"{", 400, "bad_request"),
        ("", "application/json", b"[" * 6000, 400, "bad_request"),
        ("", "application/json", b"NaN", 400, "bad_request"),
        ("", "application/json", b"", 400, "bad_request"),
        ("", "application/json", b'"\xff"', 400, "bad_request"),
        ("", "text/plain", b"\xff", 400, "bad_request"),
        ("", "application/x-www-form-urlencoded", b"a=b", 400, "bad_request"),
        ("", "text/plain", b"x" * 8193, 413, "request_too_large"),
        ("", "text/plain", b"\n" * 4000, 413, "request_too_large"),
        ("?event=relay.gap", "text/plain", b"x", 400, "bad_request"),
        ("?event=a%0Ab", "text/plain", b"x", 400, "bad_request"),
        ("?event=", "text/plain", b"x", 400, "bad_request"),
    ],
)
def test_what_is_no_event_is_refused(
    hub: Served, topic: str, path: str, content_type: str, body: bytes, status: int, code: str
) -> None:
    answer = hub.ask("POST", topic + path, body, {"Content-Type": content_type})
    assert (answer.status, answer.error["code"]) == (status, code)


def test_what_is_no_topic_or_policy_is_refused(hub: Served, topic: str) -> None:
    for path in ("/v1/topics/a%20b", f"/v1/topics/{'x' * 129}", "/v1/topics/%00"):
        assert hub.get(path).status == 422
    for path in ("/v1/topics/", "/v1/topics/a/b", "/v1/topics/a%2Fb"):
        assert hub.get(path).status == 404
    answer = hub.get(f"{topic}?policy=spill")
    assert (answer.status, answer.error["param"]) == (400, "policy")
    assert hub.ask("DELETE", topic, None, {}).status == 405


def test_there_is_a_limit_to_everything(start: Start, subscribe: Subscribe, eventually: Eventually) -> None:
    relay = start(
        "--diagnostics", "127.0.0.1:0", "--max-topics", "2", "--topic-subscribers", "2", "--max-subscribers", "3",
        "--subscriber-policies", "block,latest", "--topic-history-seconds", "1",
    )  # fmt: skip
    a, b, c = (f"/v1/topics/{name}" for name in "abc")
    held = [subscribe(relay.url + a), subscribe(relay.url + a), subscribe(relay.url + b)]
    eventually(lambda: all(one.raw for one in held))
    assert relay.get(f"{a}?policy=disconnect").status == 400
    for path, said in ((a, "subscribers"), (b, "subscribers"), (c, "topics")):
        answer = relay.get(path)
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
        assert said in answer.error["message"]
    assert relay.ask("POST", c, b"1", {"Content-Type": "application/json"}).status == 503
    metrics = (
        urllib.request.urlopen(relay.lines[1].split()[1].removesuffix("/debug/memory") + "/metrics").read().decode()
    )
    assert 'stream_rejected_total{reason="subscribers",worker="0"} 2.0' in metrics
    assert 'stream_rejected_total{reason="topics",worker="0"} 2.0' in metrics
    held[2].stop()
    # Nobody listens to b any more, and nothing is kept of it: its place is free.
    eventually(lambda: relay.ask("POST", c, b"1", {"Content-Type": "application/json"}).status == 201)


def test_no_topic_is_in_a_metric_or_a_log(hub: Served, subscribe: Subscribe, eventually: Eventually) -> None:
    path = "/v1/topics/secret-topic"
    one = subscribe(hub.url + path)
    eventually(lambda: one.raw)
    publish(hub, path, "secret-event")
    eventually(lambda: one.data)
    one.stop()
    monitor = hub.lines[1].split()[1].removesuffix("/debug/memory")
    for page in ("/metrics", "/debug/memory", "/debug/memory/streams"):
        shown = urllib.request.urlopen(monitor + page).read()
        assert b"secret" not in shown
    assert TOPIC.encode() in urllib.request.urlopen(monitor + "/metrics").read()
    assert "secret" not in hub.log()


READER, WRITER, OTHER = "reader-" + "r" * 40, "writer-" + "w" * 40, "other-" + "o" * 40
ORIGIN = "https://app.example"


def test_a_key_may_read_or_write_and_a_page_may_ask(
    start: Start, topic: str, subscribe: Subscribe, eventually: Eventually
) -> None:
    rows = {"reader": ("subscribe", READER), "writer": ("publish", WRITER), "other": ("generate+models", OTHER)}
    keys = ",".join(f"{name}:{scopes}:{hash_of(key.encode())}" for name, (scopes, key) in rows.items())
    relay = start("--no-diagnostics", "--cors-origins", ORIGIN, announced=2, RELAY_CLIENT_KEYS=keys)

    def ask(method: str, key: str, **more: str) -> Any:
        body = b"1" if method == "POST" else None
        return relay.ask(method, topic, body, {"Authorization": f"Bearer {key}", **more})

    assert ask("POST", WRITER).status == 201
    assert ask("GET", WRITER).error["code"] == "insufficient_scope"
    assert ask("POST", READER).error["code"] == "insufficient_scope"
    assert ask("GET", OTHER).status == ask("POST", OTHER).status == 403
    assert ask("GET", "nobody").status == 401
    assert ask("PUT", WRITER).status == 403  # whatever is not POST reads
    one = subscribe(relay.url + topic, headers={"Authorization": f"Bearer {READER}"}, last_event_id="0-0")
    eventually(lambda: one.data == ["1"])
    preflight = relay.ask(
        "OPTIONS", topic, None, {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    )  # fmt: skip
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert ask("POST", WRITER, Origin=ORIGIN).headers["access-control-allow-origin"] == ORIGIN


def test_a_key_for_some_topics_learns_nothing_of_the_others(
    start: Start, subscribe: Subscribe, eventually: Eventually
) -> None:
    rows = {"some": ("subscribe=news+subscribe=chat.*+publish=chat.*", READER), "every": ("subscribe+publish", WRITER)}
    listed = ",".join(f"{name}:{scopes}:{hash_of(key.encode())}" for name, (scopes, key) in rows.items())
    relay = start("--no-diagnostics", announced=2, RELAY_CLIENT_KEYS=listed)

    def ask(method: str, topic: str, key: str = READER) -> Any:
        body = b"1" if method == "POST" else None
        return relay.ask(method, f"/v1/topics/{topic}", body, {"Authorization": f"Bearer {key}"})

    for topic in ("news", "chat.1", "secret"):
        assert ask("POST", topic, WRITER).status == 201
    for topic in ("news", "n%65ws", "chat.1"):
        path = f"/v1/topics/{topic}"
        one = subscribe(relay.url + path, headers={"Authorization": f"Bearer {READER}"}, last_event_id="0-0")
        eventually(lambda one=one: one.data == ["1"])
    assert ask("POST", "chat.2").status == 201
    assert ask("GET", "chat.%24").status == 422, "it begins as it may, and is no name"
    others = ("secret", "nowhere", "chat", "chats", "news.", "NEWS", "s%65cret")
    refused = [ask("GET", topic) for topic in others]
    assert {(answer.status, answer.error["code"]) for answer in refused} == {(403, "topic_forbidden")}
    assert len({answer.body for answer in refused}) == 1, (
        "of a topic that there is, the answer is that of one that there is not"
    )
    refused = [ask("POST", topic) for topic in ("news", *others)]
    assert {(answer.status, answer.error["code"]) for answer in refused} == {(403, "topic_forbidden")}


def test_publishers_side_by_side_give_one_order(
    hub: Served, topic: str, subscribe: Subscribe, eventually: Eventually
) -> None:
    both = [subscribe(hub.url + topic) for _ in range(2)]
    eventually(lambda: all(one.raw for one in both))
    threads = [
        threading.Thread(target=lambda who=who: [publish(hub, topic, [who, n]) for n in range(25)]) for who in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: all(len(one.data) == 100 for one in both))
    assert both[0].events == both[1].events
    for who in range(4):
        assert [n for w, n in map(json.loads, both[0].data) if w == who] == list(range(25))
