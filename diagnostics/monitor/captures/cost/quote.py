"""Estimates a capture's cost from the worker's load, and refuses a capture that would be an outage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ....analysis.cost import Estimate, Load, Method, estimate, too_costly, warning
from ....errors import TooCostlyError
from ...kernel.headroom import Headroom, read_headroom
from ...workers.targets import Worker
from .pace import Pace, mark, measure_since

__all__ = ["Quote", "quote", "quotes"]

# A third of a second suffices for an idle service, and most are. It may also contain one burst of work (a request, a
# collection, the end of a start-up), which says nothing of the seconds to come: before a refusal the load is read for longer.
_SAMPLE_SECONDS, _SECOND_LOOK_SECONDS = 0.3, 1.7


@dataclass(frozen=True)
class Quote:
    """The estimate for one capture of one worker, and the readings that it was made from.

    method  the capture's technique and parameters
    pace    the worker's before the capture
    """

    method: Method
    cost: Estimate
    load: Load
    headroom: Headroom | None
    pace: Pace

    @property
    def refusal(self) -> str | None:
        """Why the capture would be an outage, a sentence; None where it would not."""
        return too_costly(self.cost, self.headroom.free_bytes if self.headroom else None)

    @property
    def warning(self) -> str | None:
        """A warning of the worst case of a capture that is not refused; None where that is harmless, too."""
        return None if self.refusal else warning(self.cost)

    def with_method(self, method: Method) -> Quote:
        """The estimate for another capture from the same readings."""
        return Quote(method, estimate(method, self.load), self.load, self.headroom, self.pace)

    def refuse(self, what: str, cheaper: Sequence[tuple[str, Quote]]) -> None:
        """Raises TooCostlyError, with the estimate, where `refusal` has a reason.

        what      the capture, in the message
        cheaper   other captures as (command line, quote); those that would be refused as well are left out
        """
        if not self.refusal:
            return
        offers = [(command, quote) for command, quote in cheaper if quote.refusal is None]
        taken = "; or ".join(f"{command} ({_price(quote.cost)})" for command, quote in offers)
        raise TooCostlyError(
            f"{what} would be too costly now: {self.refusal}",
            remedy=f'{f"take {taken}" if taken else "wait for less load"}, or send "force": true (--force)',
            estimate=self.to_json(),
            offers=[{"command": command, "estimate": quote.to_json()} for command, quote in offers],
        )

    def to_json(self) -> dict[str, Any]:
        return {
            **self.cost.to_json(),
            "warning": self.warning,
            "rss_bytes": self.load.rss_bytes,
            "live_blocks": self.load.live_blocks,
            "headroom_bytes": self.headroom.free_bytes if self.headroom else None,
            "headroom_source": self.headroom.source if self.headroom else None,
        }


def _price(cost: Estimate) -> str:
    stall = f"stalls {cost.stall_ms:.0f} ms"
    if cost.likely_cpu_share_during is None or cost.likely_slowdown == 1:
        return stall
    return f"{stall}, needs about {100 * cost.likely_cpu_share_during:.0f} % of a core meanwhile"


async def quote(worker: Worker, method: Method) -> Quote:
    """Estimate a capture of this worker from its load over a third of a second, or two seconds before a refusal."""
    return (await quotes(worker, [method]))[0]


async def quotes(worker: Worker, methods: Sequence[Method]) -> list[Quote]:
    """As `quote`, of several captures from one reading of the load."""
    first = await mark(worker)
    priced = await _priced(worker, methods, await measure_since(first, worker, _SAMPLE_SECONDS))
    if any(one.cost.would_saturate for one in priced):
        priced = await _priced(worker, methods, await measure_since(first, worker, _SECOND_LOOK_SECONDS))
    return priced


async def _priced(worker: Worker, methods: Sequence[Method], pace: Pace) -> list[Quote]:
    snapshot = await worker.snapshot()
    reading = (snapshot.reading if snapshot else None) or {}
    load = Load(
        rss_bytes=snapshot.process.rss_bytes if snapshot else 0,
        live_blocks=reading.get("allocators", {}).get("python_blocks"),
        cpu_share=pace.cpu_share,
        contention=pace.contention,
        core_left=pace.core_left.quota,
        core_free=pace.core_left.machine,
        busy_share=pace.busy_share,
    )
    headroom = read_headroom(worker.pid)
    return [Quote(method, estimate(method, load), load, headroom, pace) for method in methods]
