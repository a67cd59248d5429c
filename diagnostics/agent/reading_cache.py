"""Caches a reading for as long as its CPU time requires, and counts how long the agent's thread keeps the GIL at a time.

The agent shares the GIL with the service, so CPU time for reading thousands of streams is taken from the loop. A cached
reading is valid for two hundred times the CPU time that it took, so that making it never takes more than half a per cent of
one core, however often it is called for: hundreds of streams are read anew each time, five thousand about once a second.
"""

from __future__ import annotations

import time

from .unpatched import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")

__all__ = ["ReadingCache", "Stretches", "rest", "rest_if_due", "sliced", "stretches"]

_SHARE = 200
# A reading that takes less CPU time is never cached.
_FREE_SECONDS = 0.001
# A limit, since the first reading of thousands of streams costs more than the following ones.
_LONGEST_SECONDS = 2.5
# CPU seconds after which the GIL is let go, and that one slice of a list may take on top of it: a third of a millisecond at
# most, on whatever machine. How many connections that is, the machine says.
_STRETCH_SECONDS, _SLICE_SECONDS = 0.0001, 0.0001
# An answer that is so many seconds old lets the GIL go more seldom: a loop that is never idle may keep it for five
# milliseconds each time (`sys.getswitchinterval`), and the monitor waits for an answer for less than a second.
_PROMPT_SECONDS, _LATE_STRETCH_SECONDS = 0.25, 0.001
_FIRST_SLICE, _LEAST_SLICE, _MOST_SLICE = 32, 8, 1024


class ReadingCache:
    """Calls `make` at most as often as its CPU time allows, and returns its last result in between.

    share     a result is valid for this many times the CPU time that it took
    longest   and at most for this many seconds
    """

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        share: float = _SHARE,
        longest: float = _LONGEST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._make = make
        self._share = share
        self._longest = longest
        self._clock = clock
        self._cpu = cpu
        self._good_until = float("-inf")
        self._made: Any = None

    def __call__(self) -> Any:
        if self._made is None or self._clock() >= self._good_until:
            began = self._cpu()
            self._made = self._make()
            cost = self._cpu() - began
            good = min(self._longest, self._share * cost) if cost > _FREE_SECONDS else 0.0
            self._good_until = self._clock() + good
        return self._made

    def forget(self) -> None:
        """Drop the cached result."""
        self._made = None


class Stretches:
    """CPU seconds that the agent's thread takes between two moments at which it lets the GIL go of itself, by operation.

    It cannot have the GIL for more CPU time than that at once; the interpreter takes it away earlier from a thread that others
    wait for (`sys.getswitchinterval`). Used from the agent's thread only.
    """

    def __init__(
        self, cpu: Callable[[], float] = time.thread_time, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cpu = cpu
        self._clock = clock
        self._answer_began = 0.0
        self._began: float | None = None
        self._longest = self._sum = 0.0
        self._by_operation: dict[str, list[float]] = {}  # answers, CPU seconds of all, longest stretch

    def begin(self) -> None:
        """An answer is made from now on."""
        self._longest = self._sum = 0.0
        self._answer_began = self._clock()
        self._began = self._cpu()

    def due(self) -> bool:
        """Whether this stretch has lasted long enough; always outside of an answer."""
        if self._began is None:
            return True
        prompt = self._clock() - self._answer_began < _PROMPT_SECONDS
        return self._cpu() - self._began >= (_STRETCH_SECONDS if prompt else _LATE_STRETCH_SECONDS)

    def pause(self) -> None:
        """The thread sleeps: a stretch ends. Without effect outside of an answer."""
        if self._began is not None:
            stretch = self._cpu() - self._began
            self._sum += stretch
            self._longest = max(self._longest, stretch)

    def resume(self) -> None:
        if self._began is not None:
            self._began = self._cpu()

    def without_gil(self, call: Callable[[], T]) -> T:
        """What `call` returns, which lets the GIL go while it works: a stretch ends, and another begins."""
        self.pause()
        began = self._cpu()
        try:
            return call()
        finally:
            self._sum += self._cpu() - began
            self.resume()

    def end(self, operation: str) -> None:
        """The answer is made. `operation` is one that the agent has."""
        self.pause()
        self._began = None
        answers, seconds, longest = self._by_operation.get(operation, (0, 0.0, 0.0))
        self._by_operation[operation] = [answers + 1, seconds + self._sum, max(longest, self._longest)]

    def told(self) -> dict[str, dict[str, float]]:
        """By operation since the last time: answers, seconds of CPU of all of them, seconds of the longest stretch."""
        told = self._by_operation
        self._by_operation = {}
        return {
            operation: dict(zip(("answers", "cpu_seconds", "longest_seconds"), counts, strict=True))
            for operation, counts in told.items()
        }


stretches = Stretches()


def rest() -> None:
    """Sleep 0.1 ms to let the loop run: a thread that only releases the GIL has it back before another one has woken."""
    stretches.pause()
    sleep(0.0001)
    stretches.resume()


def rest_if_due() -> None:
    """`rest`, once a stretch has lasted long enough: a sleep and what wakes from it are not to be had for nothing either."""
    if stretches.due():
        rest()


def sliced(things: list[T], *, cpu: Callable[[], float] = time.thread_time) -> Iterator[list[T]]:
    """The list in slices that take a tenth of a millisecond of CPU each, as far as the one before tells, with rests between."""
    size, start = _FIRST_SLICE, 0
    while start < len(things):
        began = cpu()
        yield things[start : start + size]
        took = cpu() - began
        start += size
        if took > _SLICE_SECONDS:
            size = max(_LEAST_SLICE, size // 2)
        elif took < _SLICE_SECONDS / 3:
            size = min(_MOST_SLICE, size * 2)
        if start < len(things):
            rest_if_due()
