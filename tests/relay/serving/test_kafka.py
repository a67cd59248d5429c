"""The ends of streams in a Kafka topic: real relays, a broker on a real socket, and the client library's own consumer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

import relay.events.cloudevents
from diagnostics.proof.subjects.processes import free_port
from relay.events.cloudevents import TYPE
from tests.services import kafka_broker

Start = Callable[..., Any]
Eventually = Callable[[Callable[[], bool]], None]

TOPIC = "relay-stream-ended"
SCHEMA = Path(relay.events.cloudevents.__file__).with_name("stream_ended.schema.json")


class Broker:
    """The broker's process, and a consumer of the topic from its beginning."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, kafka_broker.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def events(self, count: int) -> list[tuple[dict[str, bytes], dict[str, Any]]]:
        """The headers and the JSON of the first `count` events, when they are there, in the order of their ends."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "test", "log_level": 2})
        try:
            if not count:
                return []
            # The broker makes the topic for the relay, which may not have asked it yet.
            until = time.monotonic() + 60
            while not (partitions := consumer.list_topics(TOPIC, timeout=60).topics[TOPIC].partitions):
                assert time.monotonic() < until, "the relay has told the broker of nothing"
                time.sleep(0.05)
            consumer.assign([TopicPartition(TOPIC, number, OFFSET_BEGINNING) for number in partitions])
            messages = consumer.consume(count, timeout=60)
            messages += consumer.consume(1, timeout=0.2)  # there are no more
        finally:
            consumer.close()
        assert [message.error() for message in messages] == [None] * count
        read = [(dict(message.headers() or ()), json.loads(message.value() or b"")) for message in messages]
        return sorted(read, key=lambda event: str(event[1]["time"]))

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def broker() -> Iterator[Broker]:
    running = Broker()
    try:
        yield running
    finally:
        running.end()


def outcomes(relay: Any) -> dict[str, int]:
    """What the log's last line says was lost."""
    lines = [json.loads(line) for line in relay.log().splitlines() if "before the shutdown" in line]
    return {name: count for name, count in lines[-1].items() if name.startswith("lost_")} if lines else {}


def test_the_end_of_each_stream_is_a_cloudevent(start: Start, broker: Broker, eventually: Eventually) -> None:
    relay = start("--diagnostics", "127.0.0.1:0", RELAY_KAFKA_BOOTSTRAP_SERVERS=broker.address)
    relay.chat("sim:events=5,pace=0,seed=1", stream_options={"include_usage": True})
    relay.chat("sim:pace=0,fault=disconnect@1")
    trace, span = 32 * "1", 16 * "2"
    with relay.open("sim:events=inf,pace=100", traceparent=f"00-{trace}-{span}-01") as connection:
        assert connection.recv(100)
    eventually(lambda: len(relay.endings()) == 3)
    events = broker.events(3)

    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for headers, event in events:
        assert headers == {"content-type": b"application/cloudevents+json; charset=UTF-8"}
        assert (event["specversion"], event["type"], event["subject"]) == ("1.0", TYPE, "/v1/chat/completions")
        jsonschema.validate(event["data"], schema)
        assert "sim:" not in json.dumps(event)
    assert len({event["id"] for _, event in events}) == 3
    completed, failed, left = (event for _, event in events)
    assert (completed["data"]["outcome"], completed["data"]["output_tokens"]) == ("completed", 5)
    assert (failed["data"]["outcome"], failed["data"]["error_type"]) == ("upstream_error", "upstream_unreachable")
    assert left["data"]["outcome"] == "client_disconnected"
    assert [event.get("traceparent") for event in (completed, failed, left)] == [None, None, f"00-{trace}-{span}-01"]

    monitor = relay.lines[1].split()[1].removesuffix("/debug/memory")
    wanted = 'events_out_total{destination="kafka",outcome="delivered",worker="0"} 3.0'
    eventually(lambda: wanted in fetch(monitor + "/metrics"))
    assert 'events_out_waiting_bytes{destination="kafka",worker="0"} 0.0' in fetch(monitor + "/metrics")
    of_which = json.loads(fetch(monitor + "/debug/memory/balance"))
    assert "events_out" in json.dumps(of_which)


def fetch(url: str) -> str:
    import urllib.request

    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def test_what_waits_at_the_shutdown_is_delivered_before_the_end_or_told_as_lost(
    start: Start, broker: Broker, tmp_path: Path
) -> None:
    (tmp_path / "kafka.properties").write_text("linger.ms=900\nclient.id=mine\n", encoding="utf-8")
    relay = start(
        "--no-diagnostics", "--kafka-config", str(tmp_path / "kafka.properties"), announced=2,
        RELAY_KAFKA_BOOTSTRAP_SERVERS=broker.address,
    )  # fmt: skip
    for _ in range(5):
        assert relay.chat("sim:events=1,pace=0").status == 200
    relay.terminate()
    lost = outcomes(relay)  # none where the machine is quick enough for the time that the relay takes for it
    assert lost.keys() <= {"lost_shutdown"}
    broker.events(5 - sum(lost.values()))


def test_a_broker_that_is_not_there_costs_events_and_no_stream(start: Start, tmp_path: Path) -> None:
    (tmp_path / "kafka.properties").write_text(
        "security.protocol=sasl_plaintext\nsasl.mechanism=PLAIN\nsasl.username=relay\nsasl.password=hunter2\n",
        encoding="utf-8",
    )
    relay = start(
        "--no-diagnostics", "--kafka-config", str(tmp_path / "kafka.properties"), "--kafka-queue-events", "2", announced=2,
        RELAY_KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}",
    )  # fmt: skip
    for _ in range(5):
        assert relay.chat("sim:events=3,pace=0").status == 200
    relay.terminate()
    assert outcomes(relay) == {"lost_queue_full": 3, "lost_shutdown": 2}
    assert relay.log().count("the queue is full") == 1
    assert "hunter2" not in relay.log()
    assert "%" not in "".join(line[:1] for line in relay.log().splitlines())  # librdkafka's own form


def test_a_broker_that_dies_or_stands_still_holds_nobody_up(
    start: Start, broker: Broker, eventually: Eventually
) -> None:
    relay = start(
        "--no-diagnostics", "--kafka-timeout-seconds", "1", announced=2, RELAY_KAFKA_BOOTSTRAP_SERVERS=broker.address
    )
    broker.process.send_signal(signal.SIGSTOP)
    assert relay.chat("sim:events=1,pace=0").status == 200
    eventually(lambda: '"timed_out"' in relay.log())
    broker.process.kill()
    assert relay.chat("sim:events=1,pace=0").status == 200
    began = time.monotonic()
    relay.terminate()
    lost = outcomes(relay)
    assert sum(lost.values()) == 2
    assert lost["lost_timed_out"] >= 1
    assert time.monotonic() - began < 60  # by default librdkafka would wait for its brokers for minutes


def test_two_destinations_are_told_alike(
    start: Start, broker: Broker, subscribe: Callable[..., Any], eventually: Eventually
) -> None:
    relay = start(
        "--no-diagnostics", "--stream-events-topic", "ended", "--kafka-topic", TOPIC, announced=2,
        RELAY_KAFKA_BOOTSTRAP_SERVERS=broker.address,
    )  # fmt: skip
    subscriber = subscribe(f"{relay.url}/v1/topics/ended")
    eventually(lambda: subscriber.answers == [200])
    assert relay.chat("sim:events=2,pace=0").status == 200
    eventually(lambda: len(subscriber.told("stream_ended")) == 1)
    ((_, event),) = broker.events(1)
    (told,) = subscriber.told("stream_ended")
    facts = {name: value for name, value in told.items() if name not in ("time", "duration_seconds")}
    assert facts.items() <= event["data"].items()


@pytest.mark.parametrize("text", ["sasl.password hunter2", "no.such.property=hunter2"])
def test_a_wrong_file_of_properties_ends_the_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "kafka.properties").write_text(text, encoding="utf-8")
    command = [
        sys.executable, "-m", "relay", "serve", "--port", "0", "--no-diagnostics", "--kafka-config", "kafka.properties",
        "--kafka-bootstrap-servers", "127.0.0.1:9", "--upstream-base-url", "http://127.0.0.1:9/v1",
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "RELAY_KAFKA_CONFIG" in ended.stderr
    assert "hunter2" not in ended.stderr
