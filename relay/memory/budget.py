"""A stream's budget, and how it is shared out among everything that can hold a stream's bytes.

The law of this file: what each layer may hold is a fixed share of the budget, and the shares' sum is below it, whatever the
client or the upstream does. Each layer stops the one before it: a client that does not read fills its kernel buffer, then the
transport, then the upstream's socket is not read any more, and the upstream's kernel buffer closes its window.

| layer | setting | it may hold, of a budget of 256 KiB | why that much |
|---|---|---|---|
| kernel, to the client | SO_SNDBUF 1/8 | 80 KiB | Linux doubles it, and takes a last segment that no longer fits |
| transport | high water 1/32, one write 5/32 | 48 KiB | below the mark it takes one more recv |
| facts | | 16 KiB | chat.py looks at events up to this size |
| kernel, from the upstream | SO_RCVBUF 1/8 | 64 KiB | doubled, too |
| together | | 208 KiB | the rest is HTTP framing and the allocator's |

One recv of a stream that flows may be as large as what the kernel holds for it: the bytes are in the transport when the next
one comes. A source that is read (through a proxy, or ahead) has bytes wait in two places more, the parser and the hand of its
reader; it is read in small pieces for that, and its sum is below the budget likewise (`reading_worst_case_bytes`).

It is measured, too: tests/relay/serving/test_budget.py. An upstream that speaks TLS has buffers of its own beside this
(uvloop: one of 256 KiB for each connection, of which it touches what it reads).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..protocol.chat import MAX_LOOKED_AT_BYTES

__all__ = ["MIN_BUDGET_BYTES", "StreamBudget"]

# Below it the kernel's own minima and the facts would not fit any more.
MIN_BUDGET_BYTES: Final = 128 * 1024
# A segment that no longer fits, and what the kernel charges for its own bookkeeping.
_SEGMENT_BYTES: Final = 16 * 1024
_FRAMING_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class StreamBudget:
    """The shares of `total_bytes`.

    >>> StreamBudget(256 * 1024).worst_case_bytes <= 256 * 1024
    True
    """

    total_bytes: int

    @property
    def send_buffer_bytes(self) -> int:
        """SO_SNDBUF of a client's connection."""
        return self.total_bytes // 8

    @property
    def request_buffer_bytes(self) -> int:
        """SO_RCVBUF of a client's connection, beside the budget: what it sends ahead, and what a long way takes at once."""
        return self.total_bytes // 2

    @property
    def receive_buffer_bytes(self) -> int:
        """SO_RCVBUF of an upstream's connection."""
        return self.total_bytes // 8

    @property
    def flow_recv_bytes(self) -> int:
        """What one recv takes from an upstream's connection whose bytes are handed on at once."""
        return self.total_bytes * 5 // 32

    @property
    def read_recv_bytes(self) -> int:
        """What one recv takes from an upstream's connection that is read."""
        return self.total_bytes // 32

    @property
    def parser_limit_bytes(self) -> int:
        """Above it an upstream's connection is not read."""
        return self.total_bytes // 32

    @property
    def read_bytes(self) -> int:
        """The most that one read takes from the parser, and one write gives to the transport."""
        return self.parser_limit_bytes + self.read_recv_bytes

    @property
    def write_high_water_bytes(self) -> int:
        """Above it the transport asks to wait."""
        return self.total_bytes // 32

    @property
    def spare_bytes(self) -> int:
        """What is left, for reading ahead; a buffer begins a segment at each of its ends."""
        return self.total_bytes - self.reading_worst_case_bytes - self.read_bytes

    @property
    def reading_worst_case_bytes(self) -> int:
        """The sum of what the layers may hold at once of a source that is read."""
        transport = self.write_high_water_bytes + self.read_bytes + _FRAMING_BYTES
        parser = self.parser_limit_bytes + self.read_recv_bytes
        return self._kernel_bytes + transport + self.read_bytes + parser + MAX_LOOKED_AT_BYTES

    @property
    def subscriber_bytes(self) -> int:
        """What may wait for a topic's subscriber, who has no upstream; beside it, one write is in hand."""
        return self.total_bytes - self._to_client_bytes - self.read_bytes

    @property
    def _to_client_bytes(self) -> int:
        """The kernel and the transport."""
        return (
            2 * self.send_buffer_bytes + _SEGMENT_BYTES + self.write_high_water_bytes + self.read_bytes + _FRAMING_BYTES
        )

    @property
    def worst_case_bytes(self) -> int:
        """The sum of what the layers may hold at once."""
        transport = self.write_high_water_bytes + self.flow_recv_bytes + _FRAMING_BYTES
        return max(self.reading_worst_case_bytes, self._kernel_bytes + transport + MAX_LOOKED_AT_BYTES)

    @property
    def _kernel_bytes(self) -> int:
        return 2 * self.send_buffer_bytes + _SEGMENT_BYTES + 2 * self.receive_buffer_bytes
