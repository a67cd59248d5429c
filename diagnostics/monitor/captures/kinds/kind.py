"""The parts of every kind of capture, and the session in which one is taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....analysis.cost import Method
from ....analysis.units import format_value
from ....errors import UsageError
from ...kernel.headroom import read_headroom
from ...workers.targets import Worker
from .options import Option
from .tables import HELD_COLUMNS, Column

__all__ = ["Kind", "Session"]


@dataclass
class Session:
    """One capture while it is taken.

    folder    for its artifacts
    options   checked and complete
    enter     call with each new phase ("running", "rendering"), which clients see
    wait      sleeps through a window of so many seconds, updating the progress; cancelling it cancels the capture
    """

    worker: Worker
    folder: Path
    options: Mapping[str, Any]
    enter: Callable[[str], None]
    wait: Callable[[float], Awaitable[None]]

    async def ask_reading(self, op: str, *, patience: float, **params: Any) -> dict[str, Any]:
        """Request a forked reading, with the bytes of free memory, half of which its child may take."""
        room = read_headroom(self.worker.pid)
        return await self.worker.ask(op, patience=patience, room_bytes=room and room.free_bytes, **params)


def _held_at_the_end(result: dict[str, Any]) -> str:
    return f"{format_value(result['total_bytes'], 'bytes')} still held at the end of the window"


async def _always_ready(worker: Worker) -> None:
    return None


def _no_notes(result: dict[str, Any]) -> list[str]:
    return []


@dataclass(frozen=True)
class Kind:
    """A kind of capture.

    options   name -> (default, check); a check returns the value or raises UsageError
    take      makes the artifacts and returns the result's summary
    ready     raises UsageError where this worker cannot be captured by this kind, before a window is opened
    method    options -> technique and parameters, for the estimate of the cost; default: a forked census of all objects
    agree     raises UsageError for options that exclude each other
    headline  result -> one line with its total
    columns   of the table of the result's `top`
    notes     result -> lines below that table
    """

    name: str
    options: Mapping[str, tuple[Any, Option]]
    take: Callable[[Session], Awaitable[dict[str, Any]]]
    ready: Callable[[Worker], Awaitable[None]] = _always_ready
    method: Callable[[Mapping[str, Any]], Method] = lambda options: Method()
    agree: Callable[[Mapping[str, Any]], None] = lambda options: None
    headline: Callable[[dict[str, Any]], str] = _held_at_the_end
    columns: tuple[Column, ...] = HELD_COLUMNS
    notes: Callable[[dict[str, Any]], list[str]] = _no_notes

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The given options, completed by defaults. Raises UsageError naming the option, its value and the allowed ones."""
        unknown = sorted(set(given) - set(self.options))
        if unknown:
            raise UsageError(
                f"a {self.name} capture has no option {unknown[0]!r}", remedy=f"it has {', '.join(self.options)}"
            )
        checked = {
            name: check(name, given[name]) if name in given else default
            for name, (default, check) in self.options.items()
        }
        self.agree(checked)
        return checked
