"""Tasks that nothing can wake are told from those that wait for something that may still come."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from diagnostics.agent.ledger import StreamLedger
from diagnostics.agent.loops.asyncio_tasks import hold_for_child, let_go
from diagnostics.agent.readings.running import tasks, threads
from diagnostics.agent.readings.running.leaked import leaked_tasks
from tests.scripted import listening

# Found by name, as the queue of a service's workers is: whoever has the name may fill it.
jobs: asyncio.Queue[int] | None = None
kept: set[Any] = set()
released = threading.Event()


async def never() -> None:
    await asyncio.Event().wait()


async def waits_for_a_job() -> None:
    assert jobs is not None
    await jobs.get()


async def sleeps() -> None:
    await asyncio.sleep(600)


async def is_fed_by_another_task() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def feeds() -> None:
        await asyncio.sleep(600)
        queue.put_nowait(1)

    kept.add(asyncio.create_task(feeds(), name="feeds"))
    await queue.get()


async def waits_for_a_thread() -> None:
    await asyncio.get_running_loop().run_in_executor(None, released.wait)


async def gathers_what_goes_on() -> None:
    await asyncio.gather(never(), sleeps())


async def gathers_what_never_ends() -> None:
    await asyncio.gather(never(), never())


async def shields() -> None:
    await asyncio.shield(asyncio.create_task(never(), name="shielded"))


async def groups() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(never(), name="in the group")


async def queues_that_only_wait_for_each_other() -> None:
    one: asyncio.Queue[int] = asyncio.Queue()
    other: asyncio.Queue[int] = asyncio.Queue()

    async def moves(source: asyncio.Queue[int], target: asyncio.Queue[int]) -> None:
        target.put_nowait(await source.get())

    await asyncio.gather(moves(one, other), moves(other, one))


async def reads_a_socket() -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    kept.add(writer)
    await reader.read(1)


async def streams_of_anyio() -> None:
    send, receive = anyio.create_memory_object_stream[int](0)
    async with send, receive:
        await receive.receive()


port = 0
Waits = Callable[[], Coroutine[Any, Any, None]]
LEAKED: tuple[Waits, ...] = (
    never,
    gathers_what_never_ends,
    shields,
    groups,
    queues_that_only_wait_for_each_other,
    streams_of_anyio,
)
AWAKE: tuple[Waits, ...] = (
    waits_for_a_job,
    sleeps,
    is_fed_by_another_task,
    waits_for_a_thread,
    gathers_what_goes_on,
    reads_a_socket,
)


def run(main: Coroutine[Any, Any, None], loop: str) -> None:
    try:
        if loop == "uvloop":
            import uvloop

            uvloop.run(main)
        else:
            asyncio.run(main)
    finally:
        kept.clear()


def read() -> set[int]:
    """As in a forked child: what it sees is taken before the fork."""
    hold_for_child()
    try:
        return leaked_tasks(threads.frames_with_locals())
    finally:
        let_go()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("waits", [*LEAKED, *AWAKE], ids=lambda waits: waits.__name__)
def test_a_task_is_leaked_only_where_nothing_alive_can_reach_what_it_waits_for(waits: Waits, loop: str) -> None:
    async def keeps(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.add(writer)

    async def main() -> None:
        global jobs, port
        jobs = asyncio.Queue()
        released.clear()
        async with listening(keeps) as port:
            # That somebody holds the task does not wake it.
            kept.add(asyncio.create_task(waits(), name="asked about"))
            await asyncio.sleep(0.05)
            try:
                found = read()
                others = [task for task in asyncio.all_tasks() if task.get_name() not in ("asked about", *INSIDE)]
                assert not [
                    task for task in others if id(task) in found and waits in AWAKE and "never" not in repr(task)
                ]
                (asked,) = (task for task in asyncio.all_tasks() if task.get_name() == "asked about")
                assert (id(asked) in found) == (waits in LEAKED)
            finally:
                released.set()
                for writer in [each for each in kept if isinstance(each, asyncio.StreamWriter)]:
                    writer.close()
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()
                await asyncio.sleep(0.05)

    run(main(), loop)


INSIDE = ("feeds", "shielded", "in the group")


def test_the_reading_of_tasks_says_which_are_leaked_and_why_where_that_is_not_known() -> None:
    async def main() -> None:
        kept.update(asyncio.create_task(never(), name=f"heartbeat-{number}") for number in range(3))
        kept.add(asyncio.create_task(sleeps(), name="ticker"))
        await asyncio.sleep(0)
        ledgers: list[StreamLedger] = []
        hold_for_child()
        told = tasks.read(ledgers, [], threads.frames_with_locals())
        unread = tasks.read(ledgers, [])
        let_go()
        groups = {group["name"]: group for group in told["groups"]}
        assert (groups["heartbeat-*"]["leaked"], groups["heartbeat-*"]["count"]) == (True, 3)
        assert groups["ticker"]["leaked"] is False
        assert told["meta"]["leaked"] == 3
        assert unread["meta"]["leaked"] is None
        assert any("which tasks nothing can wake: it was not asked for" in why for why in unread["not_covered"])
        late = tasks.read(ledgers, [], threads.frames_with_locals(), until=0.0)
        assert late["meta"]["leaked"] is None
        assert "ended at its deadline" in late["meta"]["leaked_unknown"]
        for task in kept:
            task.cancel()
        await asyncio.sleep(0)

    run(main(), "asyncio")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio of 3.14 does not show tasks that are done")
def test_a_task_that_is_done_is_not_leaked() -> None:
    async def main() -> None:
        done = asyncio.create_task(asyncio.sleep(0))
        await done
        kept.add(done)
        assert id(done) not in read()

    run(main(), "asyncio")
