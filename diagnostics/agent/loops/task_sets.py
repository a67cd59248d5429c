"""Tasks in asyncio's own sets: Python 3.11 to 3.13."""

from __future__ import annotations

import weakref

from ..reading_cache import sliced
from .coroutines import is_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    # The agent never imports asyncio into a service that does without it.
    import asyncio
    from collections.abc import Iterable, Iterator
    from typing import Any

__all__ = ["TaskSets"]

# Another thread may change a set while it is copied. asyncio.all_tasks() tries again likewise.
_TRIES = 100
_REGISTERS = ("_all_tasks", "_scheduled_tasks")


class TaskSets:
    """One way to see all tasks, see asyncio_tasks.py."""

    shows_ended = True

    def __init__(self, module: Any) -> None:
        self._module = module

    def sees(self, task: Any, _loop: Any) -> bool:
        return any(reference() is task for reference in self.references())

    def references(self) -> list[weakref.ref[asyncio.Task[Any]]]:
        """Weak references to all tasks, copied from the WeakSet's `data`: its iterator is Python code, three times as slow."""
        references: list[weakref.ref[asyncio.Task[Any]]] = []
        for name in _REGISTERS:
            tasks = getattr(self._module, name, None)
            if tasks is not None:
                references.extend(_copied(tasks.data))
        # Tasks in their eager first step.
        references.extend(map(weakref.ref, _copied(getattr(self._module, "_eager_tasks", ()))))
        return references

    def alive(self) -> list[asyncio.Task[Any]]:
        return [task for reference in self.references() if (task := reference()) is not None and is_whole(task)]

    def slices_of_alive(self) -> Iterator[list[asyncio.Task[Any]]]:
        for part in sliced(self.references()):
            yield [task for reference in part if (task := reference()) is not None and is_whole(task)]

    def count(self) -> int:
        return sum(len(getattr(self._module, name, ())) for name in (*_REGISTERS, "_eager_tasks"))

    def loops(self) -> list[asyncio.AbstractEventLoop]:
        return list({task.get_loop() for task in self.alive()})

    def hold(self) -> None:
        """Nothing to do: a forked child has the sets, too."""

    def let_go(self) -> None:
        """Nothing to do."""

    def why_unseen(self) -> str | None:
        return None


def _copied(live: Iterable[Any]) -> list[Any]:
    for _ in range(_TRIES):
        try:
            return list(live)
        except RuntimeError:
            continue
    return []
