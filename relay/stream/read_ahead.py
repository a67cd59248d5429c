"""Reading ahead of a slow client: a bounded buffer between the upstream and the client, so that the upstream is done sooner.

Off by default (RELAY_READ_AHEAD_BYTES=0): the upstream is then read only while the client has room. Nothing is ever dropped,
for an answer with a gap would be a wrong answer: a full buffer stops the reading.
"""

from __future__ import annotations

import asyncio

from ..memory.buffer import ByteBuffer, Channel, SegmentPool
from ..upstream.body import Body

__all__ = ["ReadAhead"]


class ReadAhead(Body):
    """A body that reads another one, `source`, into a buffer of `capacity` bytes, in a task of its own.

    read_bytes   the most that one `read` returns, unless a single chunk of the source is larger
    """

    def __init__(self, source: Body, capacity: int, read_bytes: int, pool: SegmentPool) -> None:
        self._source = source
        self._read_bytes = read_bytes
        self._channel = Channel(ByteBuffer(capacity, "block", pool))
        self._task = asyncio.create_task(self._fill(), name="relay.stream.read_ahead")

    @property
    def parsed_bytes(self) -> int:
        return self._source.parsed_bytes + self._channel.buffer.held

    async def read(self) -> bytes:
        return await self._channel.take(self._read_bytes)

    def close(self) -> None:
        self._task.cancel()
        self._source.close()
        self._channel.buffer.clear()

    async def ended(self) -> None:
        """Wait for the end of the task, which `close` has cancelled."""
        await asyncio.wait([self._task])

    async def _fill(self) -> None:
        try:
            while chunk := await self._source.read():
                await self._channel.put(chunk)
        except Exception as error:  # noqa: BLE001  # `read` raises it, after the bytes that came before it
            self._channel.close(error)
        else:
            self._channel.close()
