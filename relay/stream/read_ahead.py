"""Reading ahead of a slow client: a bounded number of the upstream's bytes wait here, so that the upstream is done sooner.

Off by default (RELAY_READ_AHEAD_BYTES=0): the pump then reads only what its client has room for. Nothing is ever dropped, since
what an answer lost it would lack: a full buffer stops the reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from ..errors import UpstreamError
from ..memory.buffer import ByteBuffer, Channel, SegmentPool

__all__ = ["ReadAhead", "Source"]


class Source(Protocol):
    """An open stream of the upstream's, as the pump uses it."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def parsed_bytes(self) -> int:
        """What has come and was not read yet."""

    async def read(self) -> bytes:
        """What has arrived; b"" at the end. Raises UpstreamError."""

    def flow(self, took: Callable[[bytes], None], ended: Callable[[UpstreamError | None], None]) -> bool:
        """Hand over what comes, as it comes, instead of being read; False where this source can only be read."""

    def keep(self) -> None:
        """Flow no more: what comes waits to be read."""

    def pause(self) -> None:
        """Let a source that flows stand still."""

    def resume(self) -> None: ...

    def close(self) -> None: ...


class ReadAhead:
    """A Source that reads another one as fast as `capacity` bytes allow; one task, ended by `close`, awaited by `ended`."""

    def __init__(self, source: Source, capacity: int, read_bytes: int, pool: SegmentPool) -> None:
        self._source = source
        self._read_bytes = read_bytes
        self._channel = Channel(ByteBuffer(capacity, "block", pool))
        self._task = asyncio.create_task(self._fill(), name="relay.stream.read_ahead")

    @property
    def headers(self) -> Mapping[str, str]:
        return self._source.headers

    @property
    def parsed_bytes(self) -> int:
        return self._source.parsed_bytes + self._channel.buffer.held

    async def read(self) -> bytes:
        return await self._channel.take(self._read_bytes)

    def flow(self, took: Callable[[bytes], None], ended: Callable[[UpstreamError | None], None]) -> bool:
        return False  # reading ahead is what its own task does

    def keep(self) -> None:
        pass

    def pause(self) -> None:
        pass  # the buffer's capacity is what stops it

    def resume(self) -> None:
        pass

    def close(self) -> None:
        self._task.cancel()
        self._source.close()
        self._channel.buffer.clear()

    async def ended(self) -> None:
        await asyncio.wait([self._task])

    async def _fill(self) -> None:
        try:
            while chunk := await self._source.read():
                await self._channel.put(chunk)
        except Exception as error:  # noqa: BLE001  # the reader's to handle, whatever it is, in its place among the bytes
            self._channel.close(error)
        else:
            self._channel.close()
