"""The settings of Kafka. Imports no Kafka client, which a relay without Kafka need not have installed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["OWN", "KafkaOptions", "parse_properties"]

# librdkafka's properties that the relay sets itself, from settings of its own or because its counts depend on them.
OWN: Final = frozenset({
    "acks", "bootstrap.servers", "delivery.timeout.ms", "dr_cb", "enable.idempotence", "error_cb", "log_cb", "log.queue",
    "logger", "max.in.flight", "max.in.flight.requests.per.connection", "message.send.max.retries", "message.timeout.ms",
    "metadata.broker.list", "on_delivery", "queue.buffering.max.kbytes", "queue.buffering.max.messages",
    "request.required.acks", "retries", "transactional.id",
})  # fmt: skip

_NAME: Final = re.compile(r"[a-z][a-z0-9_.]*")


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """The Kafka that is told of the ends of streams.

    servers           brokers to ask first, HOST:PORT by commas
    topic             the topic's name
    max_events        the most events that may wait to be delivered
    max_bytes         the most bytes of them
    timeout_seconds   after which an event that could not be delivered is given up
    properties        further properties of librdkafka, among them passwords: never to be logged
    """

    servers: str
    topic: str
    max_events: int
    max_bytes: int
    timeout_seconds: float
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)


def parse_properties(text: str, reserved: Collection[str] = OWN) -> dict[str, str]:
    """The properties of a file of `name=value` lines, as Kafka's own clients read them; `#` begins a comment line.

    Raises ValueError, whose message holds line numbers and known names, never a value: it may be a password.

    >>> parse_properties("# TLS and a password\\nsecurity.protocol=sasl_ssl\\nsasl.password = a=b\\n")
    {'security.protocol': 'sasl_ssl', 'sasl.password': 'a=b'}
    """
    properties: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not _NAME.fullmatch(name):
            raise ValueError(f"line {number} must be NAME=VALUE, a property of librdkafka")
        if name in reserved:
            raise ValueError(f"line {number}: {name} is set by the relay itself; docs/events.md has its settings")
        if name in properties:
            raise ValueError(f"line {number}: {name} stands twice")
        properties[name] = value
    return properties
