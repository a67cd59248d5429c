"""Tasks from `asyncio.all_tasks`, loop by loop: Python 3.14, where any thread may call it."""

from __future__ import annotations

from ..reading_cache import sliced
from .search import LoopSearch

TYPE_CHECKING = False
if TYPE_CHECKING:
    # The agent never imports asyncio into a service that does without it.
    import asyncio
    from collections.abc import Iterator
    from typing import Any

__all__ = ["TasksByLoop"]


class TasksByLoop:
    """One way to see all tasks, see asyncio_tasks.py."""

    shows_ended = False

    def __init__(self, module: Any) -> None:
        self._module = module
        self._search = LoopSearch()
        self._failure: str | None = None
        self._held: list[set[asyncio.Task[Any]]] | None = None

    def hold(self) -> None:
        self._held = self._by_loop()

    def let_go(self) -> None:
        self._held = None

    def sees(self, task: Any, loop: Any) -> bool:
        return task in self._module.all_tasks(loop)

    def alive(self) -> list[asyncio.Task[Any]]:
        return [task for tasks in self._by_loop() for task in tasks]

    def slices_of_alive(self) -> Iterator[list[asyncio.Task[Any]]]:
        return sliced(self.alive())

    def count(self) -> int:
        return sum(map(len, self._by_loop()))

    def _by_loop(self) -> list[set[asyncio.Task[Any]]]:
        """The tasks of each loop; an empty list where `all_tasks` fails, and `why_unseen` then says why."""
        if self._held is not None:
            return self._held
        task_sets = []
        self._failure = None
        for loop in self._search.search():
            try:
                task_sets.append(self._module.all_tasks(loop))
            except (
                RuntimeError
            ) as error:  # a task is registered that was never initialised, as by granian's --task-impl rust
                self._failure = f"asyncio.all_tasks failed: {error}"
                return []
        return task_sets

    def loops(self) -> list[asyncio.AbstractEventLoop]:
        return self._search.search()

    def why_unseen(self) -> str | None:
        kind = self._search.blind_to()
        if kind is None:
            return self._failure
        return f"{kind} is imported, which is not written in Python, and no thread shows whether a loop of its runs"
