"""The route of the stream that a sampled block was allocated for: right, or not given."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable

import pytest

from diagnostics.analysis.heap import HeapTable
from tests.diagnostics.agent.heap.conftest import Run
from tests.installs.environments import interpreters

Tables = Callable[[], dict[int, HeapTable]]
PYTHONS = [sys.executable, *map(str, interpreters().values())]

# Blocks of 65,000 bytes at a rate of 4 KiB: one in ten million is not sampled.
START = """
import asyncio, contextvars
from diagnostics.agent.ledger import StreamLedger, current_record

begin()
ledger = StreamLedger()
ledger.label_streams(heap.know_routes)
kept = []

def opened(route):
    "As the middleware does."
    record = ledger.prepare()
    current_record.set(record)
    ledger.move(record, route)
    ledger.enter(record)
    return record
"""


def routes_of(table: HeapTable) -> dict[str, Counter[str | None]]:
    """For each function that allocates blocks of that size, how many are alive by their route."""
    found: dict[str, Counter[str | None]] = {}
    for at, size, _, _ in table.blocks:
        site = table.sites[at]
        if 65_000 <= size < 66_000 and site is not None:
            found.setdefault(site.stack[0].function, Counter())[site.route] += 1
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_a_route_is_that_of_the_stream_whose_task_allocates_and_is_not_given_where_that_is_not_known(
    run: Run, tables: Tables, python: str
) -> None:
    run(
        START + """
assert heap.report()["no_route"] is None, heap.report()
many = [contextvars.ContextVar(f"other_{number}") for number in range(300)]

def before(): kept.append(bytearray(65_000))
def of_a(): kept.append(bytearray(65_000))
def of_b(): kept.append(bytearray(65_000))
def in_a_task_of_a(): kept.append(bytearray(65_000))
def in_a_thread(): kept.append(bytearray(65_000))
def after(): kept.append(bytearray(65_000))
def of_nobody(): kept.append(bytearray(65_000))

class Pool(asyncio.Protocol):
    "One connection for all: its callbacks run in the context of whoever was first."
    def __init__(self): self.waiting = []
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        kept.append(bytearray(65_000))
        while self.waiting: self.waiting.pop().set_result(None)
    async def ask(self):
        answered = asyncio.get_running_loop().create_future()
        self.waiting.append(answered)
        self.transport.write(b"?")
        await answered

async def echo(reader, writer):
    while data := await reader.read(100): writer.write(data)

async def generated(allocate, pool):
    for _ in range(20):
        allocate()
        await pool.ask()
        yield

async def stream(route, allocate, pool, others=()):
    before()
    for variable in others: variable.set(route)
    record = opened(route)
    pool = await pool()
    async for _ in generated(allocate, pool): pass
    if allocate is of_a:
        async def child():
            for _ in range(10):
                in_a_task_of_a()
                await asyncio.sleep(0)
        await asyncio.gather(child(), asyncio.to_thread(in_a_thread))
    record.close()
    after()

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    made = []
    async def pool():
        if not made:
            made.append(None)
            made[0] = (await asyncio.get_running_loop().create_connection(Pool, *server.sockets[0].getsockname()))[1]
        while made[0] is None: await asyncio.sleep(0)
        return made[0]
    await asyncio.gather(
        stream("/a", of_a, pool), *(stream("/b/{id}", of_b, pool, many[: 60 * turn]) for turn in range(5)),
    )
    of_nobody()
    made[0].transport.close()
    server.close()

asyncio.run(main())
print(len(kept))
""",
        python=python, rate=4096,
    )  # fmt: skip
    (table,) = tables().values()
    found = routes_of(table)
    assert found["of_a"] == {"/a": 20}
    assert found["of_b"] == {"/b/{id}": 100}
    assert found["in_a_task_of_a"] == {"/a": 10}
    for function, blocks in {"before": 6, "after": 6, "in_a_thread": 1, "of_nobody": 1}.items():
        assert found[function] == {None: blocks}, function
    # Its context says /a throughout, and most of it was for /b.
    assert set(found["Pool.data_received"]) == {None}
    assert table.dropped == table.torn == 0


@pytest.mark.parametrize("python", PYTHONS)
def test_streams_that_come_and_go_in_any_order_are_never_taken_for_each_other(
    run: Run, tables: Tables, python: str
) -> None:
    run(
        START + """
import random
chance = random.Random(1)

def of_open(): kept.append(bytearray(65_000))
def of_closed(): kept.append(bytearray(65_000))

async def allocates(allocate):
    allocate()

def driven(context, allocate):
    "A step of a task in this context."
    try:
        context.run(allocates(allocate).send, None)
    except StopIteration:
        pass

def one(route):
    context = contextvars.copy_context()
    return context, context.run(opened, route)

streams, last, closed = [], {}, []
for step in range(12_000):  # at most 4,000 at once
    if len(streams) == 4_000 or (streams and chance.random() < 0.4):
        context, record = streams.pop(chance.randrange(len(streams)))
        record.close()
        closed.append(context)
    else:
        streams.append(one(f"/{step % 100}"))
for context, record in streams:
    last[record.route] = context
for context in last.values(): driven(context, of_open)
for context in closed[-100:]: driven(context, of_closed)
assert len(last) == 100

more = [one("/more") for _ in range(9_000)]  # more than are known at once: those have no route, and nothing else happens
for _, record in [*streams, *more]: record.close()
del streams, more, last, closed
for number in range(300):  # more routes than there is room for
    context, record = one("/0")
    heap.extension().opened(record, f"/another/{number}")
    driven(context, of_open)
    record.close()
""",
        python=python, rate=4096,
    )  # fmt: skip
    (table,) = tables().values()
    found = routes_of(table)
    assert found["of_closed"] == {None: 100}
    known = 255 - 101  # numbers that were left for /another
    assert found["of_open"] == {
        **{f"/{number}": 1 for number in range(100)},
        **{f"/another/{number}": 1 for number in range(known)},
        None: 300 - known,
    }


def test_a_record_is_let_go_when_its_stream_ends(run: Run) -> None:
    run(
        START
        + """
import weakref
class Held: pass
live = heap.extension()
held = Held()
seen = weakref.ref(held)
live.opened(held, "/a")
live.opened(held, "/b")
del held
gc.collect()
assert seen() is not None  # nothing else may come to lie where it is
live.closed(seen())
assert seen() is None
live.closed(object())  # of a stream that nobody opened
"""
    )


def test_where_contexts_are_laid_out_otherwise_samples_have_no_route_and_go_on(run: Run, tables: Tables) -> None:
    run(
        """
from diagnostics.agent.heap import routes
routes._hash = lambda variable: 1
"""
        + START
        + """
assert heap.report()["no_route"] == "a variable is not where it should be", heap.report()
opened("/a")
async def of_a(): kept.append(bytearray(65_000))
asyncio.run(of_a())
""",
        rate=4096,
    )
    (table,) = tables().values()
    assert routes_of(table)["of_a"] == {None: 1}


def test_with_raw_it_says_that_samples_have_none(run: Run) -> None:
    run(START + 'assert "raw" in heap.report()["no_route"]\nopened("/a").close()', mode="raw")


def test_a_second_copy_of_the_package_does_not_take_the_first_ones_streams_for_its_own(run: Run) -> None:
    run(
        START
        + """
other = contextvars.ContextVar("of another copy")
assert heap.know_routes(other) is None
assert heap.know_routes(current_record) is heap.extension()
"""
    )
