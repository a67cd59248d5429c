"""What goes out when rules fire, webhooks and commands: a bounded queue, and a few at a time.

Bounded, because a receiver that answers slowly must not make the monitor's memory grow, beside a service whose memory does.
What finds the queue full is not sent, counted and logged. Each delivery has its own deadlines, so that the queue moves on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from ....errors import DiagnosticsError
from ..rule import Command, Webhook
from .command import call
from .messages import Facts
from .webhook import post

__all__ = ["Deliveries", "Delivery"]

log = logging.getLogger("diagnostics.monitor")

_MOST_WAITING: Final = 100
_AT_ONCE: Final = 4
# What is under way when the monitor ends has so long: the last firing before a service's end is the one that matters.
_FAREWELL_SECONDS: Final = 5.0

# How each action is done. A further one, such as sending a capture's files to an object store, is one more entry.
_DONE_BY: Final[dict[type, Callable[[Any, Facts], Awaitable[None]]]] = {Webhook: post, Command: call}


@dataclass(frozen=True, slots=True)
class Delivery:
    """`ended(outcome, reason)` is called once: done, failed, or dropped where it was not begun."""

    action: Webhook | Command
    facts: Facts
    ended: Callable[[str, str | None], None]


class Deliveries:
    """`run` until cancelled, then `close`."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Delivery] = asyncio.Queue(_MOST_WAITING)

    def put(self, delivery: Delivery) -> None:
        """Never waits."""
        try:
            self._waiting.put_nowait(delivery)
        except asyncio.QueueFull:
            delivery.ended("dropped", f"{_MOST_WAITING} others wait to be sent")

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(_AT_ONCE):
                group.create_task(self._deliver(), name=f"deliveries {number}")

    async def finish(self) -> None:
        """Wait a moment for what is waiting or under way; what is not sent by then is dropped."""
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._waiting.join()
        except TimeoutError:
            while not self._waiting.empty():
                self._waiting.get_nowait().ended("dropped", "the monitor has ended")

    async def _deliver(self) -> None:
        while True:
            delivery = await self._waiting.get()
            try:
                await self._one(delivery)
            finally:
                self._waiting.task_done()

    async def _one(self, delivery: Delivery) -> None:
        try:
            await _DONE_BY[type(delivery.action)](delivery.action, delivery.facts)
        except DiagnosticsError as error:
            delivery.ended("failed", str(error))
        except asyncio.CancelledError:
            delivery.ended("failed", "the monitor has ended")
            raise
        except Exception as error:
            # A defect of ours must end neither the queue nor the watch over everything else.
            log.exception("rule %s could not %s", delivery.facts.rule, delivery.action.do)
            delivery.ended("failed", repr(error))
        else:
            delivery.ended("done", None)
