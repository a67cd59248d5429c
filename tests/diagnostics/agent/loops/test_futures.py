"""What asyncio's tasks and futures are asked by names of asyncio's own: a test that fails here names what has moved."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from diagnostics.agent.loops import futures


def in_a_loop(asking: Any, *, debug: bool = False) -> None:
    asyncio.run(asking(), debug=debug)


def test_a_task_tells_the_future_that_it_waits_for_and_that_one_whom_it_wakes() -> None:
    async def asking() -> None:
        future = asyncio.get_running_loop().create_future()

        async def waiting() -> None:
            await future

        task = asyncio.create_task(waiting())
        assert futures.waited_for(task) is None
        await asyncio.sleep(0)
        assert futures.waited_for(task) is future
        assert len(futures.callbacks_of(future)) == 1
        assert (futures.is_future(future), futures.is_task(future)) == (True, False)
        assert (futures.is_future(task), futures.is_task(task)) == (True, True)
        assert futures.children_of(future) is None
        future.set_result(None)
        await task

    in_a_loop(asking)


def test_what_was_gathered_is_told() -> None:
    async def asking() -> None:
        parts = [asyncio.get_running_loop().create_future() for _ in range(2)]
        gathered = asyncio.gather(*parts)
        assert futures.children_of(gathered) == parts
        assert futures.members_of(gathered) == parts
        for each in parts:
            each.set_result(None)
        await gathered

    in_a_loop(asking)


@pytest.mark.parametrize("kind", [asyncio.TaskGroup, anyio.create_task_group])
def test_a_group_tells_its_host_and_its_members(kind: Any) -> None:
    async def asking() -> None:
        async with kind() as group:
            (group.create_task if kind is asyncio.TaskGroup else group.start_soon)(
                asyncio.sleep(0) if kind is asyncio.TaskGroup else anyio.lowlevel.checkpoint
            )
            assert futures.host_of(group) is asyncio.current_task()
            assert [type(each) for each in futures.members_of(group)] == [asyncio.Task]

    in_a_loop(asking)


def test_in_debug_mode_a_task_tells_where_it_was_made() -> None:
    async def asking() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        assert any(entry.filename == __file__ for entry in futures.created_at(task))
        await task

    in_a_loop(asking, debug=True)


def test_the_programs_own_wait_is_known() -> None:
    async def asking() -> None:
        task: Any = asyncio.current_task()
        assert [futures.run_until_complete_waits(each.__qualname__) for each in futures.callbacks_of(task)] == [True]

    in_a_loop(asking)


def test_what_has_none_of_these_names_answers_nothing() -> None:
    thing = object()
    assert (
        futures.waited_for(thing)
        is futures.children_of(thing)
        is futures.host_of(thing)
        is futures.created_at(thing)
        is None
    )
    assert (futures.callbacks_of(thing), futures.members_of(thing)) == ([], ())
