"""Known amounts planted in many streams must be found, all of them, and charged to the stream that holds them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from diagnostics.agent.ledger import StreamLedger, current_record
from diagnostics.agent.readings import retained
from diagnostics.analysis.profile import Profile
from tests.scripted import listening

STREAMS = 200
everybodys: list[bytes] = []


def run(main: Coroutine[Any, Any, None], loop: str = "asyncio") -> None:
    if loop == "uvloop":
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)


async def produce(pieces: int, size: int) -> AsyncIterator[int]:
    held = [bytes(size) for _ in range(pieces)]
    yield len(held)
    await asyncio.sleep(60)


async def outer(pieces: int, size: int) -> AsyncIterator[int]:
    buffer = bytearray(pieces * size)
    async for item in produce(pieces, size):
        yield item + len(buffer)


def planted_in_locals(pieces: int, size: int) -> int:
    """What `produce` and `outer` hold: many small pieces in a list, one large buffer."""
    return pieces * sys.getsizeof(bytes(size)) + pieces * size


async def until_all_wait() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def by_id(answer: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {row["id"]: row for row in answer["streams"]}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_is_planted_in_each_of_200_streams_is_found_and_charged_to_it(loop: str) -> None:
    async def serve(ledger: StreamLedger, number: int, planted: dict[int, int]) -> None:
        pieces = number + 1
        with ledger.stream("/chat") as stream:
            queue: asyncio.Queue[Any] = asyncio.Queue()
            for _ in range(pieces):
                queue.put_nowait({"delta": "x" * 700})
            view = memoryview(bytearray(300 * pieces))
            in_queue = pieces * sys.getsizeof({"delta": ""}) + sys.getsizeof("x" * 700)
            planted[stream.id] = planted_in_locals(pieces, 900) + in_queue + len(view)
            async for _ in outer(pieces, 900):
                pass

    async def main() -> None:
        ledger, planted = StreamLedger(), dict[int, int]()
        tasks = [asyncio.create_task(serve(ledger, number, planted)) for number in range(STREAMS)]
        await until_all_wait()
        answer = retained.read([ledger])
        streams = by_id(answer)
        assert set(streams) == set(planted)
        # What a stream holds besides: its task, frames, queue, context; some kilobytes, the same for all.
        besides = streams[1]["retained_bytes"] - planted[1]
        assert 0 <= besides < 16_000
        for number, amount in planted.items():
            assert 0.95 * amount <= streams[number]["retained_bytes"] <= 1.2 * amount + besides
        found = sum(row["retained_bytes"] for row in answer["streams"])
        assert Profile.from_json(answer).total() == found
        await ended(tasks)

    run(main(), loop)


def test_the_largest_containers_are_named_with_the_way_to_them() -> None:
    async def serve(ledger: StreamLedger) -> None:
        with ledger.stream("/chat"):
            queue: asyncio.Queue[bytes] = asyncio.Queue()
            for _ in range(100):
                queue.put_nowait(bytes(500))
            async for _ in outer(50, 2000):
                pass

    async def main() -> None:
        ledger = StreamLedger()
        task = asyncio.create_task(serve(ledger), name="relay 4711")
        await until_all_wait()
        answer = retained.read([ledger])
        containers = answer["streams"][0]["containers"]
        ways = {container["path"].partition(" -> ")[2]: container for container in containers}
        lines = {name: line for name, _file, line in answer["frames"]}
        serving = next(line for name, line in lines.items() if name.endswith("serve"))
        place = f"{serve.__qualname__} (test_retained.py:{serving})"
        assert all(container["path"].startswith("Task 'relay *' -> ") for container in containers)
        queue = ways[f"{place} -> local 'queue' -> asyncio.Queue._queue -> deque[100]"]
        assert (queue["type"], queue["length"]) == ("deque", 100)
        assert queue["bytes"] >= 100 * 500
        within = f"{place} -> outer (test_retained.py:{lines['outer']})"
        assert ways[f"{within} -> local 'buffer' -> bytearray"]["length"] == 100_000
        deepest = f"{within} -> produce (test_retained.py:{lines['produce']}) -> local 'held' -> list[50]"
        assert ways[deepest]["length"] == 50
        sample = max(answer["samples"], key=lambda row: row[1][0])
        assert [answer["frames"][index][0] for index in sample[0]] in (
            ["local 'held' -> list", "produce", "outer", serve.__qualname__],
            ["local 'buffer' -> bytearray", "outer", serve.__qualname__],
        )
        assert sample[2] == {"route": "/chat", "state": "opening"}
        await ended([task])

    run(main())


def test_what_others_hold_too_is_charged_to_nobody_and_what_two_streams_hold_is_told_apart() -> None:
    async def alone(ledger: StreamLedger, size: int) -> None:
        with ledger.stream("/alone"):
            own, module_level = bytearray(size), everybodys[:]
            await asyncio.sleep(60)
            del own, module_level

    async def sharing(ledger: StreamLedger, handed_over: list[bytearray]) -> None:
        held = handed_over[0]
        with ledger.stream("/pair"):
            await asyncio.sleep(60)
            del held

    async def main() -> None:
        ledger = StreamLedger()
        everybodys.append(bytes(1_000_000))
        # The list that hands it over is emptied: the two streams are then all that holds it.
        handed_over = [bytearray(400_000)]
        calls = [
            alone(ledger, 10_000),
            alone(ledger, 20_000),
            sharing(ledger, handed_over),
            sharing(ledger, handed_over),
        ]
        tasks = [asyncio.create_task(call) for call in calls]
        await until_all_wait()
        handed_over.clear()
        answer = retained.read([ledger])
        everybodys.clear()
        streams = by_id(answer)
        for number, size in ((1, 10_000), (2, 20_000)):
            assert size < streams[number]["retained_bytes"] < size + 8_000
            assert streams[number]["shared_bytes"] < 1_000
        for number in (3, 4):
            assert streams[number]["retained_bytes"] < 8_000
            assert 400_000 < streams[number]["shared_bytes"] < 401_000
        assert 400_000 < answer["meta"]["shared_between_bytes"] < 402_000
        await ended(tasks)

    run(main())


def test_tasks_that_a_stream_starts_are_the_streams() -> None:
    async def child(size: int) -> None:
        held = bytearray(size)
        await asyncio.sleep(60)
        del held

    async def serve(ledger: StreamLedger) -> None:
        with ledger.stream("/group"):
            async with asyncio.TaskGroup() as group:
                group.create_task(child(100_000))
                group.create_task(child(200_000))

    async def handler(ledger: StreamLedger, forgotten: list[asyncio.Task[None]]) -> None:
        record = ledger.open("/context")
        current_record.set(record)
        forgotten.append(asyncio.create_task(child(500_000)))
        await asyncio.sleep(60)

    async def background() -> None:
        held = bytearray(3_000_000)
        await asyncio.sleep(60)
        del held

    async def main() -> None:
        ledger, forgotten = StreamLedger(), list[asyncio.Task[None]]()
        tasks = [asyncio.create_task(call) for call in (serve(ledger), handler(ledger, forgotten), background())]
        await until_all_wait()
        rows = {row["route"]: row["retained_bytes"] for row in retained.read([ledger])["streams"]}
        assert 300_000 < rows["/group"] < 320_000
        assert 500_000 < rows["/context"] < 520_000
        await ended(tasks + forgotten)

    run(main())


def test_a_task_that_fills_the_queue_of_one_stream_alone_is_that_streams() -> None:
    """0.5 of 127 MiB were found where a task that nobody holds fills the queue that the body reaches through a closure."""
    shared: asyncio.Queue[bytearray] = asyncio.Queue()
    hub: list[asyncio.Queue[bytearray]] = [shared]

    async def broadcasts() -> None:
        held = bytearray(3_000_000)
        await hub[0].get()
        del held

    async def serve(ledger: StreamLedger, size: int) -> None:
        queue: asyncio.Queue[bytearray] = asyncio.Queue()

        async def fills() -> None:
            while queue.qsize() < 10:
                queue.put_nowait(bytearray(size))
            await asyncio.sleep(60)

        async def body() -> AsyncIterator[bytearray]:
            while True:
                yield await queue.get()
                await hub[0].get()

        asyncio.create_task(fills())  # noqa: RUF006  # as in the service that this is about
        await asyncio.sleep(0.01)
        with ledger.stream("/queue"):
            async for _piece in body():
                pass

    async def main() -> None:
        ledger = StreamLedger()
        tasks = [asyncio.create_task(call) for call in (serve(ledger, 10_000), serve(ledger, 20_000), broadcasts())]
        while len(ledger.records) < 2:
            await asyncio.sleep(0.01)
        await until_all_wait()
        small, large = sorted(row["retained_bytes"] for row in retained.read([ledger])["streams"])
        assert 90_000 < small < 120_000
        assert 180_000 < large < 220_000  # and what works for both streams is neither's
        await ended(tasks + [task for task in asyncio.all_tasks() if task is not asyncio.current_task()])

    run(main())


def test_a_connection_that_a_stream_waits_on_is_the_streams_though_its_loop_knows_it() -> None:
    async def serve(ledger: StreamLedger, port: int) -> None:
        with ledger.stream("/upstream"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
            try:
                await reader.readuntil(b"never")
            finally:
                writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(300_000))
        await reader.read()
        writer.close()

    async def main() -> None:
        ledger = StreamLedger()
        async with listening(answer) as port:
            task = asyncio.create_task(serve(ledger, port))
            async with asyncio.timeout(60):
                while (rows := retained.read([ledger])["streams"]) == [] or rows[0]["retained_bytes"] < 300_000:
                    await asyncio.sleep(0.05)
            (row,) = rows
            assert 300_000 <= row["retained_bytes"] < 1_000_000
            assert "asyncio.StreamReader._buffer" in row["containers"][0]["path"]
            await ended([task])

    run(main())


def test_without_streams_there_is_an_empty_answer() -> None:
    async def main() -> None:
        answer = retained.read([StreamLedger()])
        assert (answer["streams"], answer["samples"]) == ([], [])
        assert Profile.from_json(answer).total() == 0

    run(main())
