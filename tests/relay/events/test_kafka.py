"""The producer by itself: what becomes of an event, and of a producer that is of no more use."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from relay.errors import SettingsError
from relay.events import kafka
from relay.events.destinations import kafka_of
from relay.events.kafka import KafkaOut
from relay.events.options import KafkaOptions
from relay.stream.ending import Ending

Options = Callable[..., KafkaOptions]


@pytest.fixture
def options(free_port: Callable[[], int]) -> Options:
    """Options for a broker that is not there."""

    def make(**changes: Any) -> KafkaOptions:
        values = {
            "servers": f"127.0.0.1:{free_port()}",
            "topic": "ended",
            "max_events": 100,
            "max_bytes": 65536,
            "timeout_seconds": 60,
        }
        return KafkaOptions(**{**values, **changes})

    return make


def test_what_waits_is_bounded_in_events_and_in_bytes_and_counted(options: Options) -> None:
    async def live(out: KafkaOut) -> dict[str, Any]:
        async with out.serving():
            for _ in range(300):
                out.ended(Ending("completed", route="x" * 300), None)
            return out.statistics()

    by_number = asyncio.run(live(KafkaOut(options(max_events=7))))
    assert (by_number["waiting"], by_number["outcomes"]) == (7, {"delivered": 0, "queue_full": 293})
    by_size = asyncio.run(live(KafkaOut(options(max_events=1000))))
    assert 0 < by_size["waiting"] < 300
    assert by_size["bytes"] - by_size["waiting"] * kafka.EVENT_OVERHEAD_BYTES <= 65536
    assert by_size["outcomes"]["queue_full"] == 300 - by_size["waiting"]


def test_what_waits_at_the_shutdown_is_delivered(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "FLUSH_SECONDS", 60)  # as long as a slow machine takes
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 2})  # a broker on a real socket
    (broker,) = cluster.list_topics(timeout=60).brokers.values()
    out = KafkaOut(options(servers=f"{broker.host}:{broker.port}", properties={"linger.ms": "1000"}))

    async def live() -> int:
        async with out.serving():
            for _ in range(5):
                out.ended(Ending("completed"), None)
            return int(out.statistics()["waiting"])

    assert asyncio.run(live()) == 5
    assert out.statistics() == {"waiting": 0, "bytes": 0, "outcomes": {"delivered": 5}}
    cluster.close()


def test_what_was_not_delivered_at_the_shutdown_is_lost_and_told(
    options: Options, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kafka, "FLUSH_SECONDS", 0.1)
    out = KafkaOut(options())

    async def live() -> None:
        async with out.serving():
            for _ in range(5):
                out.ended(Ending("completed"), None)

    asyncio.run(live())
    assert out.statistics() == {"waiting": 0, "bytes": 0, "outcomes": {"delivered": 0, "shutdown": 5}}
    (told,) = [record for record in caplog.records if "before the shutdown" in record.message]
    assert told.__dict__["fields"] == {"lost": 5, "lost_shutdown": 5}


def test_an_event_that_is_too_large_is_lost_and_said_once(options: Options, caplog: pytest.LogCaptureFixture) -> None:
    out = KafkaOut(options(properties={"message.max.bytes": "1000"}))

    async def live() -> dict[str, Any]:
        async with out.serving():
            for _ in range(3):
                out.ended(Ending("completed", route="x" * 2000), None)
            return out.statistics()

    assert asyncio.run(live()) == {"waiting": 0, "bytes": 0, "outcomes": {"delivered": 0, "too_large": 3}}
    assert [record.message for record in caplog.records].count("ends of streams were not delivered to kafka") == 1


@pytest.mark.parametrize(
    ("name", "value"), [("no.such.property", "hunter2"), ("security.protocol", "hunter2"), ("ssl.ca.pem", "hunter2")]
)
def test_a_property_that_librdkafka_refuses_is_an_error_of_the_settings(
    options: Options, name: str, value: str, capfd: pytest.CaptureFixture[str]
) -> None:
    more = {"security.protocol": "ssl"} if name == "ssl.ca.pem" else {}
    with pytest.raises(SettingsError, match=r"RELAY_KAFKA_CONFIG.*") as refused:
        KafkaOut(options(properties={**more, name: value}))
    assert name in str(refused.value)
    assert value not in str(refused.value)
    assert capfd.readouterr().err == ""  # librdkafka writes there unless it is told not to


def test_a_password_is_in_no_message_of_the_library(options: Options) -> None:
    properties = {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "hunter2",
    }
    out = KafkaOut(options(properties=properties))
    assert "hunter2" not in repr(options(properties=properties))
    assert out._shown(KafkaError(KafkaError._AUTHENTICATION, "no: me, hunter2")) == "no: me, (hidden)"


class Dying:
    """In place of a producer: the first one takes no event after a fatal error, which no broker of a test can cause."""

    made: list[Dying]

    def __init__(self, settings: dict[str, Any]) -> None:
        self.closed = False
        self.taken: list[bytes] = []
        self.report = settings.get("on_delivery")

    @classmethod
    def of(cls) -> Callable[[dict[str, Any]], Any]:
        cls.made = []

        def make(settings: dict[str, Any]) -> Any:
            if "on_delivery" in settings:
                cls.made.append(cls(settings))
                return cls.made[-1]
            return cls(settings)

        return make

    def produce(self, topic: str, value: bytes, headers: Any) -> None:
        assert not self.closed
        if self is self.made[0]:
            raise KafkaException(KafkaError(KafkaError._FATAL, "out of order", fatal=True))
        self.taken.append(value)

    def poll(self, seconds: float) -> None:
        assert seconds == 0

    def purge(self, **_: Any) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_a_producer_that_a_fatal_error_has_ended_is_replaced(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_SECONDS", "RENEW_SECONDS", "FLUSH_SECONDS", "CLOSE_SECONDS"):
        monkeypatch.setattr(kafka, name, 0.01)
    out = KafkaOut(options(), make=Dying.of())

    async def live() -> None:
        async with out.serving():
            out.ended(Ending("timeout"), None)
            while len(Dying.made) < 2:
                await asyncio.sleep(0.01)
            out.ended(Ending("completed"), None)

    asyncio.run(live())
    first, second = Dying.made
    assert [json.loads(event)["data"]["outcome"] for event in second.taken] == ["completed"]
    assert first.closed
    assert out.counts["refused"] == 1
    assert out.counts["shutdown"] == 1  # the stand-in reports nothing


def test_a_missing_client_names_the_extra(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "relay.events.kafka")
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    assert kafka_of(None) is None
    with pytest.raises(SettingsError, match=r"pip install 'highwater-diagnostics\[kafka\]'"):
        kafka_of(options())


def test_the_queue_is_never_larger_than_librdkafka_takes(options: Options) -> None:
    for size in (64 * 1024, 2**31 - 1024):
        out = KafkaOut(options(max_events=1_000_000, max_bytes=size), make=Producer)
        assert out.statistics()["waiting"] == 0
    with pytest.raises(SettingsError):
        KafkaOut(options(max_events=1_000_000, max_bytes=2**41), make=Producer)
