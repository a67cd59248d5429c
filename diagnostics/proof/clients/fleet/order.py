"""What a fleet is asked to do. It goes to each process as JSON, and each takes its part of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from ..address import Address, RequestMessage
from ..mix import Behavior, Fast, behavior_of

__all__ = ["Order"]

# Multiples of it fill an interval evenly, however few there are: of 100 streams with a share of 5 %, 5 get it.
_GOLDEN = 0.6180339887498949
_FAST = Fast()


@dataclass(frozen=True)
class Order:
    """One run.

    connections     streams open together, over all processes
    streams         how many in all; None: until the time is up
    seconds         at most so long; None: until all streams have ended
    rate            streams that begin each second, whatever became of the earlier ones; None: one after the other
    shares          behavior -> share of the streams, 0 to 1; the rest is Fast
    patience_seconds   a stream that sends nothing for so long has failed
    keep_alive      a client's next stream goes over the same connection, where the service leaves it open
    """

    address: Address
    message: RequestMessage
    connections: int = 100
    streams: int | None = 1000
    seconds: float | None = None
    rate: float | None = None
    shares: Mapping[Behavior, float] = field(default_factory=lambda: MappingProxyType({}))
    patience_seconds: float = 30.0
    verify_tls: bool = True
    keep_alive: bool = False

    def at_port(self, port: int) -> Order:
        """The same at another port."""
        return replace(self, address=replace(self.address, port=port))

    def behavior(self, number: int) -> Behavior:
        """What stream `number` does: the same in every run, and each share spread over the whole of it."""
        place = (number + 1) * _GOLDEN % 1.0
        for behavior, share in self.shares.items():
            if place < share:
                return behavior
            place -= share
        return _FAST

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads. The message is in it whole, headers too: it is for the fleet's own processes."""
        body = base64.b64encode(self.message.body).decode()
        return {
            **{each.name: getattr(self, each.name) for each in fields(self)},
            "address": asdict(self.address),
            "message": {"method": self.message.method, "body": body, "headers": dict(self.message.headers)},
            "shares": [[behavior.kind, behavior.parameters(), share] for behavior, share in self.shares.items()],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Order:
        """Read what `to_json` wrote."""
        message = data["message"]
        return cls(
            **{
                **data,
                "address": Address(**data["address"]),
                "message": RequestMessage(message["method"], base64.b64decode(message["body"]), message["headers"]),
                "shares": {behavior_of(kind, parameters): share for kind, parameters, share in data["shares"]},
            }
        )
