"""What must hold after every step of the loop, and at the end. Each law compares two accounts that are kept apart."""

from __future__ import annotations

import asyncio
from typing import Any

from relay.api.relay import Relay

__all__ = ["BytesError", "LeftError", "Truth"]


class BytesError(AssertionError):
    """More is held than may be, or an account says other than what it is about."""


class LeftError(AssertionError):
    """Something is left when all have gone."""


class Truth:
    """The laws of one relay. `connections` are its clients'; `largest` is the most that was seen of each account, in bytes."""

    def __init__(self, relay: Relay, connections: set[Any], pool: Any) -> None:
        self._relay = relay
        self._connections = connections
        self._pool = pool
        settings = relay.settings
        self._stream_bytes = settings.stream_budget.total_bytes
        self._requests_bytes = settings.requests_bytes
        self._max_streams = settings.max_streams
        self._topics_bytes = settings.topics_bytes
        self.steps = 0
        self.largest = {"requests": 0, "one stream": 0, "all streams": 0, "topics": 0}

    def look(self) -> None:
        """Raise BytesError where a law does not hold now."""
        self.steps += 1
        self._requests()
        self._streams()
        self._topics()

    def _requests(self) -> None:
        budget = self._relay.request_budget
        heads = sum(connection._charged_bytes for connection in self._connections)
        if budget.heads != heads:
            raise BytesError(f"heads are charged with {budget.heads} bytes, connections with {heads}")
        self._bounded("requests", budget.heads + budget.bodies, self._requests_bytes)

    def _streams(self) -> None:
        relay = self._relay
        records = relay.ledger.records
        lives = relay.open_streams.all()
        if len(records) != len(lives):
            raise BytesError(f"the gauge says {len(records)} streams, {len(lives)} are open")
        if relay.gate.open < len(lives) or relay.gate.open > self._max_streams:
            raise BytesError(f"the gate counts {relay.gate.open} streams, {len(lives)} are open")
        unread = sum(connection.waiting_bytes for connection in self._pool._in_use)
        total = unread
        for record in records.values():
            if record.buffered_bytes < 0:
                raise BytesError(f"a stream holds {record.buffered_bytes} bytes")
            self._bounded("one stream", record.buffered_bytes, self._stream_bytes)
            total += record.buffered_bytes
        for connection in self._connections:
            unsent = connection.transport.get_write_buffer_size()
            self._bounded("one stream", unsent, self._stream_bytes)
            total += unsent
        # A connection may hold the end of an answer besides the streams that are open.
        self._bounded("all streams", total, self._stream_bytes * (len(self._connections) + len(self._pool._in_use)))

    def _topics(self) -> None:
        topics = self._relay.hub.topics
        held = sum(topic.held for topic in topics.all())
        if topics.held != held:
            raise BytesError(f"topics are charged with {topics.held} bytes and hold {held}")
        listeners = sum(len(topic.listeners) for topic in topics.all())
        if topics.subscribers != listeners:
            raise BytesError(f"{topics.subscribers} subscribers are counted, {listeners} listen")
        self._bounded("topics", held, self._topics_bytes)

    def _bounded(self, what: str, nbytes: int, most: int) -> None:
        if nbytes > self.largest[what]:
            self.largest[what] = nbytes
        if not 0 <= nbytes <= most:
            raise BytesError(f"{what}: {nbytes} bytes are held, {most} may be")

    def at_the_end(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Raise LeftError unless nothing is left: all clients have gone, and every deadline has passed.

        tasks   those of the relay that were begun for clients and still run
        """
        relay, pool = self._relay, self._pool
        left = {
            "bytes of heads": relay.request_budget.heads,
            "bytes of bodies": relay.request_budget.bodies,
            "records": len(relay.ledger.records),
            "streams": len(relay.open_streams),
            "places at the gate": relay.gate.open,
            "clients' connections": len(self._connections),
            "upstream's connections in use": len(pool._in_use),
            "subscribers": relay.hub.topics.subscribers,
            "tasks": sorted(str(task.get_coro()) for task in tasks),
        }
        found = {what: value for what, value in left.items() if value}
        if found:
            raise LeftError(f"left at the end: {found}")
