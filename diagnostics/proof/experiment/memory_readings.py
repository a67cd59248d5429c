"""Reads a service's memory: now, once it has settled, or after a garbage collection."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from ...analysis.growth import Reading
from ...errors import TargetError, TargetSilentError
from ..subjects.sockets import connections, send_queues
from ..subjects.subject import Subject

__all__ = ["READ_EVERY_SECONDS", "collected", "look", "settled"]

READ_EVERY_SECONDS = 0.1
_LEAST_SETTLE_SECONDS = 0.3
# On an idle machine a service settles within one second; on a busy one it needed four to notice that its clients had left.
_MOST_SETTLE_SECONDS = 20.0
# A service without an answer for this long is silent.
_SILENT_SECONDS = 30.0
# Settled: two readings in a row differ by less than this.
_SETTLED_BYTES = 16 * 1024
_MOST_TRIES = 50


async def look(one: Subject, ended: int = 0) -> Reading | None:
    """One reading; None where the service or its monitor is too busy to answer. `ended`: streams of the round that ended.

    Raises TargetError where the service has ended.
    """
    one.process.check()
    try:
        reading = await one.monitor.reading()
    except TargetSilentError:
        return None
    except TargetError as error:
        # The monitor ends with its subject: the error names the process that ended first, with its output.
        raise await one.process.blamed(error) from error
    return None if reading is None else replace(reading, ended=ended, kernel_bytes=send_queues(one.port))


async def settled(one: Subject) -> Reading:
    """Wait until the clients' sockets are closed, garbage is collected and memory is stable; return the last reading.

    At most `_MOST_SETTLE_SECONDS`: then the last reading is returned as it is.
    """
    began = time.monotonic()
    last: Reading | None = None
    while True:
        await one.collect()
        await asyncio.sleep(READ_EVERY_SECONDS)
        reading = await look(one)
        waited = time.monotonic() - began
        if reading is None:
            if waited > _SILENT_SECONDS:
                raise TargetSilentError(f"the {one.side} app does not answer; its last output:\n{one.process.tail()}")
            continue
        still = last is not None and abs(reading.in_use_bytes - last.in_use_bytes) < _SETTLED_BYTES
        if waited >= _LEAST_SETTLE_SECONDS and still and connections(one.port) <= one.beside:
            return reading
        if waited > _MOST_SETTLE_SECONDS:
            return reading
        last = reading


async def collected(one: Subject) -> Reading:
    """A reading after a garbage collection, with the clients connected. Raises TargetSilentError."""
    for _ in range(_MOST_TRIES):
        await one.collect()
        # The service collects when its event loop handles the signal.
        await asyncio.sleep(2 * READ_EVERY_SECONDS)
        if (reading := await look(one)) is not None:
            return reading
    raise TargetSilentError(f"the {one.side} app does not answer; its last output:\n{one.process.tail()}")
