"""Tasks by where they wait, through everything that asyncio code waits in."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest

from diagnostics.agent.ledger import StreamLedger
from diagnostics.agent.loops.asyncio_tasks import shows_ended
from diagnostics.agent.readings.running import tasks, threads
from diagnostics.agent.readings.running.tasks import name_pattern
from diagnostics.analysis.profile import Profile


def run(main: Coroutine[Any, Any, None], loop: str = "asyncio", debug: bool = False) -> None:
    if loop == "uvloop":
        import uvloop

        uvloop.run(main, debug=debug)
    else:
        asyncio.run(main, debug=debug)


async def items() -> AsyncIterator[int]:
    yield 1
    await asyncio.Event().wait()


async def doubled() -> AsyncIterator[int]:
    async for item in items():
        yield 2 * item


async def consume() -> None:
    async for _ in doubled():
        pass


async def waits_direct() -> None:
    await asyncio.create_task(consume(), name="child")


async def waits_gather() -> None:
    await asyncio.gather(asyncio.create_task(consume(), name="child"), asyncio.create_task(consume(), name="child"))


async def waits_wait() -> None:
    await asyncio.wait([asyncio.create_task(consume(), name="child")])


async def waits_shielded() -> None:
    await asyncio.shield(asyncio.create_task(consume(), name="child"))


async def waits_with_timeout() -> None:
    await asyncio.wait_for(asyncio.create_task(consume(), name="child"), 60)


async def waits_under_timeout() -> None:
    async with asyncio.timeout(60):
        await asyncio.create_task(consume(), name="child")


async def waits_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(consume(), name="child")


async def waits_anyio() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(consume, name="child")


async def read_beside(*calls: Callable[[], Awaitable[None]], ledgers: tuple[StreamLedger, ...] = ()) -> dict[str, Any]:
    """Start the calls as tasks, read when all wait, and end them."""
    gc.collect()  # what other tests have left
    started = [asyncio.ensure_future(call()) for call in calls]
    for _ in range(5):
        await asyncio.sleep(0)
    answer = tasks.read(ledgers, [])
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, *started, return_exceptions=True)
    return answer


def groups(answer: dict[str, Any], **facts: Any) -> list[dict[str, Any]]:
    return [group for group in answer["groups"] if all(group[key] == value for key, value in facts.items())]


def functions(group: dict[str, Any]) -> list[str]:
    return [function for function, _file, _line in group["stack"]]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_stack_goes_through_async_generators_to_where_the_task_waits(loop: str) -> None:
    async def main() -> None:
        answer = await read_beside(*[consume] * 50)
        (group,) = groups(answer, count=50)
        assert functions(group) == ["Event.wait", "items", "doubled", "consume"]
        assert (group["state"], group["name"], group["waits_for"]) == ("pending", "Task-*", "a future")
        assert (group["orphan"], group["awaited_by"], group["created"]) == (True, [], None)
        (own,) = groups(answer, state="running")
        assert (own["awaited_by"], own["orphan"]) == (["the program"], False)
        profile = Profile.from_json(answer)
        assert [(kind.name, kind.unit) for kind in profile.sample_types] == [("tasks", "count")]
        assert profile.total() == answer["meta"]["tasks"] >= 51
        largest = max(profile.samples, key=lambda sample: sample.values)
        assert [frame.function for frame in largest.stack] == ["Event.wait", "items", "doubled", "consume"]
        assert dict(largest.labels) == {"state": "pending", "loop": "0", "orphan": "yes"}

    run(main(), loop)


@pytest.mark.parametrize(
    "waits",
    [
        waits_direct,
        waits_gather,
        waits_wait,
        waits_shielded,
        waits_with_timeout,
        waits_under_timeout,
        waits_task_group,
        waits_anyio,
    ],
)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_task_that_another_one_waits_for_is_no_orphan(loop: str, waits: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        answer = await read_beside(waits)
        children = [
            group for group in answer["groups"] if functions(group)[-1:] == ["consume"] or group["name"] == "child"
        ]
        assert children, answer["groups"]
        for child in children:
            assert child["awaited_by"] == [f"task Task-* in {waits.__qualname__}"]
            assert not child["orphan"]
        (parent,) = [group for group in answer["groups"] if functions(group)[-1] == waits.__qualname__]
        assert parent["orphan"]

    run(main(), loop)


def test_the_stack_goes_on_through_the_task_that_is_awaited() -> None:
    async def main() -> None:
        answer = await read_beside(waits_direct)
        (parent,) = groups(answer, waits_for="a task")
        assert functions(parent) == ["Event.wait", "items", "doubled", "consume", "waits_direct"]

    run(main())


def test_a_task_whose_callback_only_cancels_another_is_not_awaited() -> None:
    async def main() -> None:
        kept: set[asyncio.Task[None]] = set()

        async def starts() -> None:
            task = asyncio.create_task(consume(), name="kept")
            other = asyncio.create_task(asyncio.sleep(60), name="other")
            kept.add(task)
            task.add_done_callback(kept.discard)
            task.add_done_callback(other.cancel)
            await asyncio.sleep(60)

        answer = await read_beside(starts)
        (group,) = groups(answer, name="kept")
        assert group["orphan"]
        assert group["callbacks"] == ["Task.cancel", "set.discard"]

    run(main())


def test_debug_mode_knows_where_a_task_was_created_and_a_ledger_how_old_its_stream_is() -> None:
    now = [100.0]
    ledger = StreamLedger(clock=lambda: now[0])

    async def serve() -> None:
        with ledger.stream("/chat"):
            await asyncio.sleep(60)

    async def main() -> None:
        answer = await read_beside(serve, ledgers=(ledger,))
        (group,) = groups(answer, routes={"/chat": 1})
        assert group["created"][0][0] in ("read_beside", "<listcomp>")
        assert group["oldest_seconds"] is not None

    run(main(), debug=True)


def test_a_done_task_that_is_still_held_is_shown_as_done_or_said_not_to_be_covered() -> None:
    async def main() -> None:
        done = asyncio.create_task(asyncio.sleep(0), name="over")
        await done
        answer = await read_beside()
        if not shows_ended():
            assert groups(answer, name="over") == []
            assert any("done and still held" in words for words in answer["not_covered"])
            return
        (group,) = groups(answer, name="over")
        assert (group["state"], group["orphan"]) == ("done", False)

    run(main())


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("Task-17", "Task-*"),
        ("stream 9f86d081884c7d65 of 12", "stream * of *"),
        ("job-123e4567-e89b-12d3-a456-426614174000", "job-*"),
        ("relay", "relay"),
        ("x" * 500, "x" * 60),
    ],
)
def test_a_name_loses_what_differs_from_task_to_task(name: str, pattern: str) -> None:
    assert name_pattern(name) == pattern


def test_names_without_end_become_one_pattern() -> None:
    async def main() -> None:
        names = [a + b for a in "abcdefghij" for b in "klmnopqrst"]

        async def named() -> None:
            held = [asyncio.create_task(asyncio.sleep(60), name=f"user {name}") for name in names]
            await asyncio.gather(*held)

        answer = await read_beside(named)
        assert len({group["name"] for group in answer["groups"]}) <= 51
        assert sum(group["count"] for group in groups(answer, name="(other)")) >= 50

    run(main())


def test_threads_are_read_with_their_names_and_stacks() -> None:
    entered, leave = threading.Event(), threading.Event()

    def parked() -> None:
        entered.set()
        leave.wait(60)

    thread = threading.Thread(target=parked, name="worker-3")
    thread.start()
    entered.wait(60)
    try:
        seen = threads.read()
        (frames,) = [frames for name, frames in seen if name == "worker-3"]
        assert [function for function, _file, _line in frames][-2:] == ["Event.wait", "Condition.wait"] or any(
            function.endswith("parked") for function, _file, _line in frames
        )
        assert threading.current_thread().name not in [name for name, _frames in seen]
        answer = tasks.read([], seen)
        assert "worker-*" in [row["name"] for row in answer["threads"]]
        assert {"state": "thread"} in [labels for _stack, _values, labels in answer["samples"]]
    finally:
        leave.set()
        thread.join()
