"""Whether a leak is there at all: the same work on a service without us, by what the kernel says of its memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ..services.exchange import wait_until_ready
from ..services.running import Failed, beside, running
from ..services.usage import anonymous
from .limited import limited
from .pace import paced
from .table import Side

_WARM_SECONDS = 8.0


@dataclass(frozen=True)
class Growth:
    """Of all processes of a service, after a warm-up: bytes of anonymous memory gained, over `requests` and `seconds`; of a
    service with a limit, bytes that its cgroup is charged for."""

    gained_bytes: int
    requests: int
    seconds: float

    def __str__(self) -> str:
        each = self.gained_bytes / max(1, self.requests)
        return (
            f"{self.gained_bytes / 2**20:+.1f} MiB in {self.seconds:.0f} s of {self.requests} requests,"
            f" {each / 1024:+.1f} KiB each"
        )


def grows(side: Side, place: Path, folder: Path, seconds: float) -> Growth:
    """Work on it for `seconds` after a warm-up. Raises Failed where it cannot be started or answers wrongly."""
    with (
        beside(side, folder) as upstream,
        limited(side) as (started, charged),
        running(started, place, folder / "alone", observed=False, upstream=upstream) as one,
    ):
        wait_until_ready(one)
        held = charged or (lambda: sum(map(anonymous, one.family())))
        with paced(one, side.work, side.a_second) as came_to:
            time.sleep(_WARM_SECONDS)
            before, done, began = held(), came_to.done, time.monotonic()
            time.sleep(seconds)
            after = held()
            found = Growth(after - before, came_to.done - done, time.monotonic() - began)
        if came_to.failed > came_to.done:
            raise Failed(
                f"{came_to.failed} of {came_to.done + came_to.failed} requests failed: {came_to.error}: {one.tail()}"
            )
        return found
