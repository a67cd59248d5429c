"""A stream's budget, and how it is shared out among everything that can hold a stream's bytes.

The law of this file: each layer may hold a fixed share of the budget, and the sum of the shares is below the budget, whatever
the client or the upstream does. Backpressure goes from layer to layer: a client that does not read fills its kernel buffer,
then the transport, then the upstream's socket is not read any more, and the upstream's kernel buffer closes its window.

| layer | setting | it may hold, of a budget of 256 KiB | why that much |
|---|---|---|---|
| kernel, to the client | SO_SNDBUF 1/8 | 80 KiB | Linux doubles it, and takes a last segment that no longer fits |
| transport | high-water mark 1/32, one write 5/32 | 48 KiB | just below the mark it takes one more recv |
| facts | | 16 KiB | protocol/chat.py parses events up to this size |
| kernel, from the upstream | SO_RCVBUF 1/8 | 64 KiB | Linux doubles it, too |
| together | | 208 KiB | the rest is for HTTP framing and the allocator |

One recv of a body that flows may be nearly as large as its kernel buffer: its bytes are in the transport before the next recv.
A body that is read (behind a proxy, or read ahead) holds bytes in two more places, the parser and the reading task; it is read
in smaller pieces, so that its sum is below the budget as well (`reading_worst_case_bytes`).

tests/relay/serving/test_budget.py measures it. TLS to the upstream has buffers of its own, which are not in the budget (uvloop:
256 KiB for each connection, of which it touches as much as it reads).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..protocol.chat import MAX_LOOKED_AT_BYTES

__all__ = ["MIN_BUDGET_BYTES", "StreamBudget"]

# In less, the kernel's smallest buffers and the facts do not fit.
MIN_BUDGET_BYTES: Final = 128 * 1024
# The last segment, which the kernel takes though it no longer fits, with the kernel's bookkeeping for it.
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
        """SO_RCVBUF of a client's connection, not in the budget: for request bodies, and for throughput over long routes."""
        return self.total_bytes // 2

    @property
    def receive_buffer_bytes(self) -> int:
        """SO_RCVBUF of an upstream's connection."""
        return self.total_bytes // 8

    @property
    def flow_recv_bytes(self) -> int:
        """The most that one recv takes from an upstream's connection whose body flows (Body.flow)."""
        return self.total_bytes * 5 // 32

    @property
    def read_recv_bytes(self) -> int:
        """The most that one recv takes from an upstream's connection whose body is read (Body.read)."""
        return self.total_bytes // 32

    @property
    def parser_limit_bytes(self) -> int:
        """While more than this waits to be read, the upstream's socket is not read."""
        return self.total_bytes // 32

    @property
    def read_bytes(self) -> int:
        """The most that one read takes from the parser, and one write gives to the transport."""
        return self.parser_limit_bytes + self.read_recv_bytes

    @property
    def write_high_water_bytes(self) -> int:
        """The high-water mark of the transport's write buffer towards the client."""
        return self.total_bytes // 32

    @property
    def spare_bytes(self) -> int:
        """What the layers leave of the budget, for reading ahead (a buffer's first and last segments may be partly used)."""
        return self.total_bytes - self.reading_worst_case_bytes - self.read_bytes

    @property
    def reading_worst_case_bytes(self) -> int:
        """The sum over the layers for a body that is read (Body.read)."""
        transport = self.write_high_water_bytes + self.read_bytes + _FRAMING_BYTES
        parser = self.parser_limit_bytes + self.read_recv_bytes
        return self._kernel_bytes + transport + self.read_bytes + parser + MAX_LOOKED_AT_BYTES

    @property
    def subscriber_bytes(self) -> int:
        """The most that may wait in the buffer of a topic's subscriber, which has no upstream; one write comes on top."""
        return self.total_bytes - self._to_client_bytes - self.read_bytes

    @property
    def _to_client_bytes(self) -> int:
        """The kernel's buffer and the transport's, towards the client."""
        return (
            2 * self.send_buffer_bytes + _SEGMENT_BYTES + self.write_high_water_bytes + self.read_bytes + _FRAMING_BYTES
        )

    @property
    def worst_case_bytes(self) -> int:
        """The sum over the layers, for a body that flows or one that is read, whichever is larger."""
        transport = self.write_high_water_bytes + self.flow_recv_bytes + _FRAMING_BYTES
        return max(self.reading_worst_case_bytes, self._kernel_bytes + transport + MAX_LOOKED_AT_BYTES)

    @property
    def _kernel_bytes(self) -> int:
        return 2 * self.send_buffer_bytes + _SEGMENT_BYTES + 2 * self.receive_buffer_bytes
