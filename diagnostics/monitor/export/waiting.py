"""What is to be sent and is not yet: bounded in number and bytes. Where there is no more room the oldest goes: the newest look
at a heap is worth most."""

from __future__ import annotations

from collections import deque

from .payload import Payload

__all__ = ["MOST", "MOST_BYTES", "Waiting"]

# A profile of a service has 10 to 100 KiB, of a full table 1 MiB. One worker's last hour at an interval of a minute has room.
MOST = 64
MOST_BYTES = 16 * 1024 * 1024


class Waiting:
    """A queue of payloads, the oldest first."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._payloads: deque[Payload] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._payloads)

    @property
    def held_bytes(self) -> int:
        return self._bytes

    @property
    def oldest(self) -> Payload | None:
        return self._payloads[0] if self._payloads else None

    def add(self, payload: Payload) -> list[Payload]:
        """Keep `payload`. Returns those that had to go for it; it is one of them where it alone is too large."""
        if len(payload.body) > self._most_bytes:
            return [payload]
        self._payloads.append(payload)
        self._bytes += len(payload.body)
        gone = []
        while len(self._payloads) > self._most or self._bytes > self._most_bytes:
            gone.append(self._payloads.popleft())
            self._bytes -= len(gone[-1].body)
        return gone

    def done(self, payload: Payload) -> bool:
        """`payload` was the oldest, and is dealt with. False where it had to go meanwhile."""
        if not self._payloads or self._payloads[0] is not payload:
            return False
        self._payloads.popleft()
        self._bytes -= len(payload.body)
        return True
