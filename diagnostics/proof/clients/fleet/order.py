"""What a fleet is asked to do. It goes to each process as JSON, and each takes its part of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from ..address import Address, Message

__all__ = ["Habit", "Order"]

# Multiples of it fill an interval evenly, however few there are: of 100 streams with a share of 5 %, 5 get it.
_GOLDEN = 0.6180339887498949


class Habit(StrEnum):
    """How a client reads.

    FAST    whatever comes, to the end
    SLOW    so many bytes a second; the rest stays with the service
    LEAVE   closes its connection after so many events
    NEVER   sends its request and reads nothing, for so many seconds
    RESET   breaks its connection (RST) after so many events, as a phone that loses its network
    """

    FAST = "fast"
    SLOW = "slow"
    LEAVE = "leave"
    NEVER = "never"
    RESET = "reset"


@dataclass(frozen=True)
class Order:
    """One run.

    connections     streams open together, over all processes
    streams         how many in all; None: until the time is up
    seconds         at most so long; None: until all streams have ended
    rate            streams that begin each second, whatever became of the earlier ones; None: one after the other
    shares          habit -> share of the streams, 0 to 1; the rest is FAST
    slow_bytes_per_second, after_events, hold_seconds   what SLOW, LEAVE and RESET, NEVER do
    patience_seconds   a stream that sends nothing for so long has failed
    """

    address: Address
    message: Message
    connections: int = 100
    streams: int | None = 1000
    seconds: float | None = None
    rate: float | None = None
    shares: Mapping[Habit, float] = field(default_factory=lambda: MappingProxyType({}))
    slow_bytes_per_second: int = 16 * 1024
    after_events: int = 5
    hold_seconds: float = 5.0
    patience_seconds: float = 30.0
    verify_tls: bool = True

    def at_port(self, port: int) -> Order:
        """The same at another port."""
        return replace(self, address=replace(self.address, port=port))

    def habit(self, number: int) -> Habit:
        """What stream `number` does: the same in every run, and each share spread over the whole of it."""
        place = (number + 1) * _GOLDEN % 1.0
        for habit, share in self.shares.items():
            if place < share:
                return habit
            place -= share
        return Habit.FAST

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads. The message is in it whole, headers too: it is for the fleet's own processes."""
        body = base64.b64encode(self.message.body).decode()
        return {
            **{each.name: getattr(self, each.name) for each in fields(self)},
            "address": asdict(self.address),
            "message": {"method": self.message.method, "body": body, "headers": dict(self.message.headers)},
            "shares": dict(self.shares),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Order:
        """Read what `to_json` wrote."""
        message = data["message"]
        return cls(
            **{
                **data,
                "address": Address(**data["address"]),
                "message": Message(message["method"], base64.b64decode(message["body"]), message["headers"]),
                "shares": {Habit(habit): share for habit, share in data["shares"].items()},
            }
        )
