"""Produces the facts of each stream that has ended to Kafka, as CloudEvents, by librdkafka (the package confluent-kafka).

The law of this file: no stream waits for Kafka, and no thread of librdkafka calls anything of the relay. `produce` puts an
event into librdkafka's queue, which is bounded in events and in bytes, and returns at once; librdkafka's own threads deliver
it. Their reports wait in a queue of the library until the event loop asks for them (`poll(0)`, which never waits), so that
every count here is changed by the event loop alone.

Each event ends as exactly one of these:

| outcome | what happened |
|---|---|
| `delivered` | all replicas that are in sync have it (the producer is idempotent: once, and in order) |
| `queue_full` | it found no room: the broker is away or too slow |
| `timed_out` | it was not delivered within RELAY_KAFKA_TIMEOUT_SECONDS |
| `too_large` | it is larger than the producer or the broker takes |
| `refused` | any other answer of the broker or of the library |
| `shutdown` | it still waited FLUSH_SECONDS after the last stream had ended |
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ..errors import SettingsError
from ..log import Throttle
from ..stream.ending import Ending
from .cloudevents import CONTENT_TYPE, encode_ending, source_of
from .options import KafkaOptions

__all__ = ["EVENT_OVERHEAD_BYTES", "KafkaOut"]

log = logging.getLogger("relay.events.kafka")

# What librdkafka and its Python client hold for a waiting event besides its bytes: the message, its header and its report.
EVENT_OVERHEAD_BYTES: Final = 512
# The time between two looks for reports.
POLL_SECONDS: Final = 0.2
# The longest waits at shutdown: for events to be delivered, and for the threads of librdkafka to end.
FLUSH_SECONDS: Final = 2.0
CLOSE_SECONDS: Final = 1.0
# Lost events, and errors of the broker, are logged at most once in this time.
QUIET_SECONDS: Final = 60.0
# The least time between two producers, where a fatal error has ended one.
RENEW_SECONDS: Final = 10.0

TIMED_OUT: Final = frozenset({KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT})  # noqa: SLF001  # its names for librdkafka's own errors
TOO_LARGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
PURGED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # noqa: SLF001  # as above


class KafkaOut:
    """Produces while `serving` runs. For one event loop only.

    counts   events by their outcome, since the start
    Raises SettingsError where librdkafka refuses a property.
    """

    def __init__(
        self,
        options: KafkaOptions,
        *,
        host: str | None = None,
        clock: Callable[[], float] = time.time,
        make: Callable[[dict[str, Any]], Producer] = Producer,
    ) -> None:
        self._options = options
        self._source = source_of(host or socket.gethostname())
        self._clock = clock
        self._make = make
        self._producer: Producer | None = None
        self._renew_at: float | None = None  # monotonic seconds; set while a fatal error has ended the producer
        self._waiting = self._bytes = 0
        self._thread = 0  # that of the event loop
        self._given_up_as = "refused"  # the outcome of events that wait while a producer is dropped
        self._throttle = Throttle(QUIET_SECONDS)
        self.counts: Counter[str] = Counter({"delivered": 0})
        _check(make, options)

    def statistics(self) -> dict[str, Any]:
        """`waiting` events, the `bytes` that are held for them, and all `outcomes` so far. Called from any thread."""
        return {"waiting": self._waiting, "bytes": self._bytes, "outcomes": dict(self.counts)}

    def ended(self, ending: Ending, traceparent: str | None) -> None:
        """Produce the event of a stream that has ended. Never waits."""
        producer = self._producer
        if producer is None:  # before `serving`, or while a fatal error has ended the producer
            self._lose("refused", "there is no producer")
            return
        event = encode_ending(ending, source=self._source, at=self._clock(), traceparent=traceparent)
        try:
            producer.produce(self._options.topic, event, headers=[("content-type", CONTENT_TYPE.encode())])
        except BufferError:
            self._lose("queue_full", "the queue is full: the broker is away or too slow")
        except KafkaException as error:
            self._lose_by(error.args[0])
        else:
            self._waiting += 1
            self._bytes += len(event) + EVENT_OVERHEAD_BYTES

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Produce for as long as the `with` block runs, then deliver the rest, for FLUSH_SECONDS at most."""
        self._thread = threading.get_ident()
        self._open()
        polling = asyncio.create_task(self._poll_now_and_then(), name="relay.events.kafka")
        try:
            yield
        finally:
            polling.cancel()
            await asyncio.wait([polling])
            await self._close()

    def _open(self) -> None:
        options = self._options
        self._producer = self._make({
            **_properties(options),
            "bootstrap.servers": options.servers,
            "on_delivery": self._reported,
            "error_cb": self._failed,
            "logger": _quiet(),
        })  # fmt: skip

    async def _poll_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self._producer is not None:
                self._producer.poll(0)
            if self._renew_at is not None and time.monotonic() >= self._renew_at:
                await self._renew()

    async def _renew(self) -> None:
        """Replace a producer that a fatal error has ended: librdkafka accepts no event after one."""
        self._renew_at = None
        await self._drop()
        try:
            self._open()
        except KafkaException as error:  # a file of certificates is gone, for example
            self._failed(error.args[0])
            self._renew_at = time.monotonic() + RENEW_SECONDS

    async def _close(self) -> None:
        """Deliver what waits, for FLUSH_SECONDS at most; count the rest as lost, and tell of it."""
        until = time.monotonic() + FLUSH_SECONDS
        while self._producer is not None and self._waiting and time.monotonic() < until:
            self._producer.poll(0)
            await asyncio.sleep(0.01)
        self._given_up_as = "shutdown"
        await self._drop()
        lost = {outcome: count for outcome, count in self.counts.items() if count and outcome != "delivered"}
        if lost:
            fields = {"lost": sum(lost.values()), **{f"lost_{outcome}": count for outcome, count in lost.items()}}
            log.warning("ends of streams were not delivered to kafka before the shutdown", extra={"fields": fields})

    async def _drop(self) -> None:
        """Give up what still waits, and end the producer's threads, for CLOSE_SECONDS at most."""
        producer, self._producer = self._producer, None
        until = time.monotonic() + CLOSE_SECONDS
        if producer is not None:
            producer.purge(in_queue=True, in_flight=True, blocking=False)
            while self._waiting and time.monotonic() < until:
                producer.poll(0)
                await asyncio.sleep(0.01)
        # Those whose reports librdkafka still owes: nobody will ask for them.
        if self._waiting:
            self.counts[self._given_up_as] += self._waiting
        self._waiting = self._bytes = 0
        if producer is not None:
            await self._end(producer)

    async def _end(self, producer: Producer) -> None:
        """Close it. That waits for the threads of librdkafka, so it is done by a thread that may be left behind."""
        closed, loop = asyncio.Event(), asyncio.get_running_loop()

        def close() -> None:
            producer.close()
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waited for so long
                loop.call_soon_threadsafe(closed.set)

        try:
            threading.Thread(target=close, name="relay.events.kafka.close", daemon=True).start()
        except RuntimeError as error:
            log.warning("kafka: its threads were left to the end of the process: %s", error)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(closed.wait(), CLOSE_SECONDS)

    # Called by librdkafka within `poll`, which only the event loop calls

    def _reported(self, error: KafkaError | None, message: Message) -> None:
        """The report on one event: it is delivered, or given up."""
        if threading.get_ident() != self._thread:
            return  # `close` asks for reports, too, from its own thread: they are counted as given up already
        self._waiting -= 1
        self._bytes -= len(message) + EVENT_OVERHEAD_BYTES
        if error is None:
            self.counts["delivered"] += 1
        else:
            self._lose_by(error)

    def _failed(self, error: KafkaError) -> None:
        """An error of the connections to the brokers, or of the producer as a whole."""
        if threading.get_ident() != self._thread:
            return  # as above: the producer is of no more interest
        count = self._throttle.due(error.code())
        if count:
            log.warning("kafka: %s", error.name(), extra={"fields": {"error": self._shown(error), "count": count}})
        if error.fatal() and self._renew_at is None:
            self._renew_at = time.monotonic() + RENEW_SECONDS

    def _lose_by(self, error: KafkaError) -> None:
        code = error.code()
        outcome = (
            "timed_out" if code in TIMED_OUT
            else "too_large" if code in TOO_LARGE
            else self._given_up_as if code in PURGED
            else "refused"
        )  # fmt: skip
        self._lose(outcome, self._shown(error))
        if error.fatal() and self._renew_at is None:
            self._renew_at = time.monotonic() + RENEW_SECONDS

    def _lose(self, outcome: str, why: str) -> None:
        self.counts[outcome] += 1
        if outcome != "shutdown" and self._throttle.due(outcome):
            fields = {"outcome": outcome, "lost": self.counts[outcome], "error": why}
            log.warning("ends of streams were not delivered to kafka", extra={"fields": fields})

    def _shown(self, error: KafkaError) -> str:
        """The error's sentence, without a value of RELAY_KAFKA_CONFIG in it."""
        return _masked(error.str(), self._options.properties)


def _properties(options: KafkaOptions) -> dict[str, Any]:
    """The producer's properties, but for the brokers and the functions that it calls."""
    return {
        "client.id": "highwater-relay",
        "linger.ms": 100,  # fewer and larger requests; nobody waits for an event
        "log_level": 2,  # what matters comes by error_cb; the rest would be a line for each attempt to connect
        **options.properties,
        "enable.idempotence": True,
        "message.timeout.ms": round(options.timeout_seconds * 1000),
        "queue.buffering.max.messages": options.max_events,
        "queue.buffering.max.kbytes": max(1, options.max_bytes // 1024),
    }


def _check(make: Callable[[dict[str, Any]], Producer], options: KafkaOptions) -> None:
    """Raise SettingsError where librdkafka refuses a property. Makes a producer that knows no broker, and drops it at once."""
    try:
        make({**_properties(options), "logger": _quiet()}).close()
    except (KafkaException, ValueError, TypeError) as error:
        told = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        # Librdkafka quotes some values.
        raise SettingsError(
            f"librdkafka refuses RELAY_KAFKA_CONFIG: {_masked(told, options.properties)}",
            remedy="its page of configuration lists the properties and their values",
        ) from None


def _masked(text: str, properties: Mapping[str, str]) -> str:
    """`text` without the values of these properties; numbers and words of three letters at most give nothing away."""
    for value in sorted(properties.values(), key=len, reverse=True):
        if len(value) > 3:
            text = text.replace(value, "(hidden)")
    return text


def _quiet() -> logging.Logger:
    """A logger that drops everything: librdkafka would write lines of its own form, with values of properties, to stderr."""
    quiet = logging.Logger("relay.events.librdkafka")  # noqa: LOG001  # outside of the tree of loggers, on purpose
    quiet.addHandler(logging.NullHandler())
    return quiet
