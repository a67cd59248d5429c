"""Topics as a client meets them: publish, subscribe, come back, and be too slow."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from itertools import count
from typing import Any

import pytest

from relay.keys import hash_of

Served = Any  # the fixtures are typed in the conftest.py files
Start = Any
Subscribe = Any
Eventually = Callable[..., Any]

TOPIC = "/v1/topics/{topic}"
names = (f"/v1/topics/t{number}" for number in count())


@pytest.fixture(scope="module")
def hub(start_shared: Start) -> Served:
    return start_shared(
        "--diagnostics", "127.0.0.1:0", "--write-timeout-seconds", "1", "--heartbeat-seconds", "0.2",
        "--topic-history-events", "50", "--topic-event-bytes", "8192", "--subscriber-bytes", "16384", "--log-level", "debug",
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


def never_reads(relay: Served, path: str) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(10)
    connection.connect(relay.address)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: relay\r\n\r\n".encode())
    assert connection.recv(1) == b"H"
    return connection


def drain(connection: socket.socket) -> bytes:
    """What comes within a second, and whether it was reset."""
    connection.settimeout(1)
    whole = b""
    try:
        while chunk := connection.recv(65536):
            whole += chunk
    except TimeoutError:
        pass
    return whole


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "drop_newest", "latest", "disconnect"])
def test_a_slow_subscriber_holds_up_nobody_and_gets_what_its_policy_says(
    start: Start, topic: str, policy: str, subscribe: Subscribe, eventually: Eventually
) -> None:
    relay = start(
        "--diagnostics", "127.0.0.1:0", "--topic-history-bytes", "400000", "--write-timeout-seconds", "20",
        "--heartbeat-seconds", "0", "--subscriber-bytes", "40000", "--log-level", "debug",
    )  # fmt: skip
    fast = subscribe(relay.url + topic)
    eventually(lambda: fast.raw)
    with closing(never_reads(relay, f"{topic}?policy={policy}")) as slow:
        began = time.monotonic()
        for number in range(100):
            publish(relay, topic, [number, "x" * 8000])
        assert time.monotonic() - began < 15
        eventually(lambda: len(fast.data) == 100)

        def row() -> dict[str, Any]:
            (worker,) = json.loads(urllib.request.urlopen(relay.lines[1].split()[1], timeout=5).read())["workers"]
            return dict(worker["streams"]["routes"][TOPIC])

        eventually(lambda: row()["open"] == (1 if policy in ("block", "disconnect") else 2))
        if policy in ("block", "disconnect"):
            # block: 400,000 bytes of history are gone past it; disconnect: 40,000 in its buffer.
            eventually(lambda: row()["closed"]["slow_client"] == 1)
            assert row()["dropped_events"] == {}
            with pytest.raises(ConnectionResetError):
                drain(slow)
            return
        got = drain(slow)
        numbers = [int(part.split(b",")[0]) for part in got.split(b"data: [")[1:]]
        dropped = row()["dropped_events"][policy]
        assert sorted(set(numbers)) == numbers
        assert len(numbers) + dropped == 100
        assert 99 in numbers if policy != "drop_newest" else 99 not in numbers
        told = [json.loads(part.split(b"\n")[0])["events"] for part in got.split(b"event: relay.dropped\ndata: ")[1:]]
        assert sum(told) == (0 if policy == "latest" else dropped)
        assert row()["buffered_bytes"] == 0


def test_a_subscriber_that_takes_nothing_is_ended_in_time_and_the_silent_one_kept_alive(
    hub: Served, topic: str, subscribe: Subscribe, eventually: Eventually
) -> None:
    idle = subscribe(hub.url + topic)
    with closing(never_reads(hub, topic)) as slow:
        for number in range(20):
            publish(hub, topic, [number, "x" * 8000])
        eventually(lambda: "outcome=slow_client" in hub.log())
        with pytest.raises(ConnectionResetError):
            drain(slow)
    time.sleep(1.5)  # longer than the write time-out, with nothing to write
    assert idle.raw.count(b": hb\n\n") >= 3
    publish(hub, topic, "still here")
    eventually(lambda: idle.data[-1:] == ['"still here"'])


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


def test_subscribers_are_told_when_the_relay_ends(
    start: Start, topic: str, subscribe: Subscribe, eventually: Eventually
) -> None:
    relay = start("--no-diagnostics", "--drain-seconds", "0.5", announced=2)
    one = subscribe(relay.url + topic)
    eventually(lambda: one.raw)
    with closing(never_reads(relay, topic)):
        for number in range(30):
            publish(relay, topic, [number, "x" * 8000])
        eventually(lambda: len(one.data) == 30)
        assert relay.terminate() == 0
    (error,) = one.told("error")
    assert error["error"]["code"] == "shutting_down"
    assert one.last_event_id == one.events[29].id


def test_a_thousand_subscribers_leave_nothing_behind(start: Start, topic: str, eventually: Eventually) -> None:
    relay = start("--diagnostics", "127.0.0.1:0", "--topic-history-seconds", "1")
    monitor = relay.lines[1].split()[1]

    def worker() -> dict[str, Any]:
        (one,) = json.loads(urllib.request.urlopen(monitor, timeout=20).read())["workers"]
        return dict(one)

    def tasks() -> int:
        return int(worker()["tasks"])

    publish(relay, topic, "first")
    before = tasks()
    clients = []
    for _ in range(1000):
        clients.append(socket.create_connection(relay.address, timeout=20))
        clients[-1].sendall(f"GET {topic} HTTP/1.1\r\nHost: relay\r\n\r\n".encode())
    eventually(lambda: worker()["streams"]["open"] == 1000, 30)
    for number in range(3):
        publish(relay, topic, number)
    for client in clients[::2]:
        whole = b""
        while b"data: 2\n\n" not in whole:
            whole += client.recv(65536)
    # Half say good-bye, half vanish.
    for number, client in enumerate(clients):
        if number % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    eventually(lambda: worker()["streams"]["open"] == 0, 30)
    eventually(lambda: tasks() <= before, 20)
    left = worker()["streams"]
    assert left["buffered_bytes"] == 0
    assert left["routes"][TOPIC]["closed"]["client_disconnected"] == 1000
    assert left["routes"][TOPIC]["events_out"] >= 3 * 500


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
