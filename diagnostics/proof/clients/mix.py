"""How clients behave, and which clients come. A service meets five kinds, which differ in how they read and how they go:

    Fast         reads whatever comes, to the end
    Slow         reads so many bytes a second and leaves the rest to the service
    Leaves       closes its connection after so many events
    Resets       breaks its connection (RST), as a phone that loses its network, after so many events or seconds
    NeverReads   sends its request and reads nothing; closes after so many seconds where they are given

`stream.run_stream` is the client that behaves so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

__all__ = ["Behavior", "Fast", "Leaves", "Mix", "NeverReads", "Resets", "Slow", "behavior_of"]

# What the client does not read is to stay with the service, and not in the client's kernel.
_SMALL_BUFFER_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """How a client reads, and when it goes by itself.

    bytes_per_second      what it reads; None: whatever comes
    step_bytes            the most that it reads at once; None: what its pace gives in a tenth of a second
    receive_buffer_bytes  its SO_RCVBUF, which the kernel doubles; None: the kernel's choice
    after_events          it goes when so many events have come; None: it does not for their sake
    after_seconds         it goes so many seconds after its request; None: it stays
    reads, resets         whether it reads at all; whether it goes with a reset
    option                its name in `diagnostics load`: --slow 10%
    """

    option: ClassVar[str]
    reads: ClassVar[bool] = True
    resets: ClassVar[bool] = False
    bytes_per_second: int | None = None
    step_bytes: int | None = None
    receive_buffer_bytes: int | None = None
    after_events: int | None = None
    after_seconds: float | None = None

    @property
    def kind(self) -> str:
        return type(self).__name__

    def parameters(self) -> dict[str, Any]:
        """What is set, by name; with the kind, what `behavior_of` makes this one of."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fast(Behavior):
    option: ClassVar[str] = "fast"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow(Behavior):
    option: ClassVar[str] = "slow"
    bytes_per_second: int
    receive_buffer_bytes: int | None = _SMALL_BUFFER_BYTES

    @classmethod
    def coarse(cls, bytes_per_second: int) -> Slow:
        """One of a fleet: it empties its receive buffer and pauses for that long, which takes fewer reads."""
        return cls(bytes_per_second=bytes_per_second, step_bytes=2 * _SMALL_BUFFER_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaves(Behavior):
    option: ClassVar[str] = "leave"
    after_events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resets(Behavior):
    option: ClassVar[str] = "reset"
    resets: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverReads(Behavior):
    option: ClassVar[str] = "never"
    reads: ClassVar[bool] = False
    receive_buffer_bytes: int | None = _SMALL_BUFFER_BYTES


_KINDS: Mapping[str, type[Behavior]] = {kind.__name__: kind for kind in (Fast, Slow, Leaves, Resets, NeverReads)}


def behavior_of(kind: str, parameters: Mapping[str, Any]) -> Behavior:
    """The behavior of that kind with these parameters, as `Behavior.kind` and `Behavior.parameters` gave them."""
    return _KINDS[kind](**parameters)


@dataclass(frozen=True, slots=True)
class Mix:
    """Who comes, and how many of each. With `again`, a client whose stream has ended opens another one until time is up.

    They come within `arrival_seconds`, not in one instant.
    """

    clients: tuple[tuple[Behavior, int], ...]
    again: bool = False
    arrival_seconds: float = 0.05

    @property
    def streams(self) -> int:
        """How many streams are open together."""
        return sum(count for _, count in self.clients)

    @property
    def slow(self) -> int:
        """How many of them read more slowly than they may be sent to."""
        return sum(count for behavior, count in self.clients if isinstance(behavior, Slow | NeverReads))

    def each(self) -> Iterator[Behavior]:
        for behavior, count in self.clients:
            for _ in range(count):
                yield behavior
