"""The census and the ways to what is alive, on objects whose number, size and holders are known."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import ctypes
import functools
import gc
import re
import sqlite3
import subprocess
import sys
import threading
import types
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import anyio
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.agent import redaction
from diagnostics.agent.ledger import StreamLedger
from diagnostics.agent.readings import everything, objects
from diagnostics.agent.readings.classes import full_name, type_name
from diagnostics.agent.readings.graph import size_of
from diagnostics.agent.readings.holders import CYCLE_TEXT, LOST_TEXT
from diagnostics.agent.readings.newness import FirstLook
from diagnostics.agent.readings.running import threads
from diagnostics.agent.readings.running.tasks import name_pattern
from diagnostics.agent.readings.sampling import PARTS
from diagnostics.agent.redaction import is_programs, key_shown, shown_path
from diagnostics.monitor.captures.kinds.objects import unheld

kept: list[Any] = []
variable: contextvars.ContextVar[Any] = contextvars.ContextVar("request_state", default=None)


class Planted:
    """A type of its own, so that nobody else has any."""

    registry: ClassVar[dict[Any, Any]] = {}


class Large:
    """Of instances so large that few types grow by more, whatever else the process is about."""

    __slots__ = ("me", *(f"place_{number}" for number in range(250)))


class Slotted:
    __slots__ = ("held",)


class Marked:
    """Another one of which nobody else has any."""


class Hostile:
    """Answers every question about itself with an error."""

    def __sizeof__(self) -> int:
        raise RuntimeError("asked for its size")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = object.__hash__

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("asked for its class")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"asked for {name}")


def name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def why(kind: type) -> str:
    (way, *others) = objects.explain([name_of(kind)], 4)["paths"][name_of(kind)]
    assert not others
    return str(way["path"])


def root_of(kind: type) -> Any:
    return objects.explain([name_of(kind)], 4)["paths"][name_of(kind)][0]["root"]


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(redaction, "_words", None)  # each reading has a child of its own, and looks itself
    # All objects are looked at, however many other tests have left in this process.
    monkeypatch.setattr(objects, "parts_for", lambda _tracked, _blocks: PARTS)
    yield
    kept.clear()
    Planted.registry.clear()
    if any(type(thing) is Planted for thing in gc.get_objects()):  # in a cycle: the next test must not find them
        gc.collect()


def test_a_census_counts_each_object_once_with_what_the_collector_does_not_track() -> None:
    before = objects.census()["types"]
    text = "x" * 500_000 + "y"
    kept.extend([Planted(), Planted(), {"a": text, "b": text, "c": bytes(70_000)}, (bytes(30_000),)])
    after = objects.census()["types"]
    assert after[name_of(Planted)][0] == 2
    grown = after["bytes"][1] - before["bytes"][1]
    assert 90_000 <= grown < 110_000
    assert 450_000 <= after["str"][1] - before["str"][1] < 900_000  # with the keys of `before`


def test_types_whose_objects_may_have_memory_in_c_are_told() -> None:
    class Wrapped(sqlite3.Connection): ...

    some = [zlib.compressobj(), sqlite3.connect(":memory:"), Wrapped(":memory:"), Slotted(), Planted(), {}, deque()]
    found = set(objects.census()["handles"])
    for each in some[1:3]:
        each.close()
    assert {full_name(type(each)) for each in some[:3]} <= found
    assert not {full_name(type(each)) for each in some[3:]} & found


def test_a_type_of_an_extension_that_calls_itself_a_builtin_is_told_too() -> None:
    """Pillow's images kept in a list were "which library is not known": theirs is `ImagingCore`, without a module."""
    strings = pytest.importorskip("librt.strings", reason="an extension whose types have no dot in their names")
    some = [strings.BytesWriter(), {}.items(), bytearray(), object(), iter([]), gc.collect, types.SimpleNamespace()]
    found = set(objects.census()["handles"])
    assert full_name(type(some[0])) in found
    assert not {full_name(type(each)) for each in some[1:]} & found


def test_an_object_is_sized_and_named_without_running_its_code() -> None:
    kept.append(Hostile())
    assert size_of(kept[0]) == object.__sizeof__(kept[0])
    assert size_of(bytes(1000)) == sys.getsizeof(bytes(1000))
    assert objects.census()["types"][name_of(Hostile)][0] == 1
    assert why(Hostile) == f"module {__name__} -> global 'kept' -> list[1] -> {type_name(Hostile)}"


class Connection:
    """As instances are: a handful of attributes, and nobody asks for their dictionary."""

    def __init__(self) -> None:
        for name in ("reader", "writer", "host", "port", "encoder", "parser", "retries"):
            setattr(self, name, None)
        self.waiting: list[object] = []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="attributes are in a dictionary, which is counted")
def test_attributes_of_an_instance_without_a_dictionary_are_counted_with_it() -> None:
    """Connections that a library lost took 2.3 kB each and a census saw half of it: none was big enough to be named."""
    empty = Planted()
    kept.extend(Connection() for _ in range(5_000))
    count, size = objects.census()["types"][name_of(Connection)]
    assert count == 5_000
    # At least a pointer for each attribute; the allocator rounds up, and so may the class.
    assert sys.getsizeof(empty) + 8 * 8 <= size / count <= 256
    for connection in kept:
        vars(connection)
    again, alone = objects.census()["types"][name_of(Connection)]
    # Now they are in dictionaries, which are rows of their own.
    assert (again, alone) == (5_000, 5_000 * sys.getsizeof(empty))


def test_ways_lead_through_globals_classes_slots_and_dictionaries() -> None:
    kept.append(Planted())
    leaf = type_name(Planted)
    assert why(Planted) == f"module {__name__} -> global 'kept' -> list[1] -> {leaf}"
    kept.clear()
    Planted.registry.update({"chat": Planted()})
    way = why(Planted)
    assert way.startswith(("class ", f"module {__name__} -> global 'Planted' -> "))
    assert way.endswith(f"Planted.registry -> dict[1]['chat'] -> {leaf}")
    Planted.registry.clear()
    slotted = Slotted()
    slotted.held = Planted()
    kept.append(slotted)
    del slotted
    assert why(Planted) == f"module {__name__} -> global 'kept' -> list[1] -> {type_name(Slotted)}.held -> {leaf}"


# A user's name, that no code spells; spelled backwards here, or this file would.
ANNA = "ennasirhc_anna"[::-1]


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("a prompt with words", "[<str of 19>]"),
        ("x" * 41, "[<str of 41>]"),
        (ANNA, "[<str of 14>]"),
        ("sk_live_abcdefgh", "[<str of 16>]"),  # which code does spell, here
        (4711, ""),
        (("a", 1), ""),
    ],
    ids=["words", "long", "a user", "a key", "number", "tuple"],
)
def test_keys_that_are_data_are_shown_by_their_shape(key: Any, shown: str) -> None:
    kept.append({key: Planted()})
    assert why(Planted) == f"module {__name__} -> global 'kept' -> list[1] -> dict[1]{shown} -> {type_name(Planted)}"


@dataclass
class Declares:
    shelf: Any = None


def test_attributes_that_are_data_are_not_shown() -> None:
    holder = SimpleNamespace()
    setattr(holder, ANNA, Planted())
    kept.append(holder)
    del holder
    assert why(Planted).endswith(f"-> types.SimpleNamespace -> {type_name(Planted)}")
    kept.clear()
    kept.append(Declares(Planted()))
    assert why(Planted).endswith(f"{type_name(Declares)}.shelf -> {type_name(Planted)}")


def test_with_no_names_at_all_types_and_sizes_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIAGNOSTICS_SHOW_NAMES", "none")
    kept.append({"spelled": Declares(Planted())})
    way = why(Planted)
    assert (
        way == f"module {__name__} -> list[1] -> dict[1][<str of 7>] -> {type_name(Declares)} -> {type_name(Planted)}"
    )


@given(key=st.text(min_size=3, max_size=60))
def test_no_key_is_shown_that_the_program_does_not_spell(key: str) -> None:
    shown = key_shown(key, length=True)
    assert shown == f"[<str of {len(key)}>]" or is_programs(key)
    assert not is_programs("sk-" + key)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("worker 12", "worker *"),
        ("Task-17", "Task-*"),
        ("ThreadPoolExecutor-0_1", "ThreadPoolExecutor-*_*"),
        ("stream of sk_live_4eC39HqLyjWDarjtT1zdp7dc", "stream of *"),
        ("key=sk-abcdef, x", "key=*, x"),
        ("mail to anna@example.com", "mail to *"),
        ("upload-4eC39HqLyjWDarjt", "upload-*"),
        ("relay 5f0c6b1e-93a1-4b52-8e0b-0f7c1d2e3f4a", "relay *"),
    ],
)
def test_what_looks_like_data_in_a_tasks_name_is_not_shown(name: str, shown: str) -> None:
    assert name_pattern(name) == shown


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/count/1000", "/count/1000"),
        ("/users/anna@example.com/mails", "/users/*/mails"),
        ("/reset/4eC39HqLyjWDarjtT1zdp7dc", "/reset/*"),
        ("/reset/sk_live_abcdefgh", "/reset/*"),
        ("/card/4242424242424242", "/card/*"),
        ("/say/ein satz", "/say/*"),
        ("/files/report-final.json", "/files/report-final.json"),
        (None, None),
    ],
)
def test_what_looks_like_data_in_a_path_is_not_shown(path: str | None, shown: str | None) -> None:
    assert shown_path(path) == shown


def test_ways_lead_through_tasks_and_context_variables() -> None:
    async def works() -> None:
        backlog = [Planted()]
        await asyncio.sleep(60)
        del backlog

    async def main() -> None:
        task = asyncio.create_task(works(), name="worker 12")
        await asyncio.sleep(0)
        way = why(Planted)
        assert way.startswith("Task 'worker *' -> ")
        assert way.endswith(f" -> local 'backlog' -> list[1] -> {type_name(Planted)}")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
        locals()  # the reading has looked at this frame, too, which keeps a copy of what it held then
        gc.collect()  # the task's frame and its error hold each other

        async def carries() -> None:
            variable.set(Planted())
            await asyncio.sleep(60)

        task = asyncio.create_task(carries(), name="carrier")
        await asyncio.sleep(0)
        assert why(Planted) == f"Task 'carrier' -> context variable 'request_state' -> {type_name(Planted)}"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_what_a_task_of_a_group_holds_is_told_by_the_task_and_not_by_its_librarys_bookkeeping() -> None:
    """On 3.14 the way led through a table in which anyio remembers the parents of all tasks."""

    async def holds() -> None:
        backlog = [Planted()]
        await anyio.sleep_forever()
        del backlog

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(holds, name="worker 7")
            await anyio.wait_all_tasks_blocked()
            way = why(Planted)
            assert way.startswith("Task 'worker *' -> ")
            assert way.endswith(f" -> local 'backlog' -> list[1] -> {type_name(Planted)}")
            assert "anyio" not in way
            group.cancel_scope.cancel()

    asyncio.run(main())


def test_what_a_library_keeps_is_told_by_the_library_and_not_by_a_task_that_passes_by() -> None:
    """What a handler kept that a framework had loaded hung, it said, from a request that was just using it."""
    import email.mime.base as library

    async def serves(handler: list[Any]) -> None:
        own = [Slotted()]
        await asyncio.sleep(60)
        del handler, own

    async def main() -> None:
        library.handlers = {"audit": [[Planted()]]}  # type: ignore[attr-defined]
        task = asyncio.create_task(serves(library.handlers["audit"]), name="request 1")  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        way = "module email.mime.base -> global 'handlers' -> dict[1]['audit'] -> list[1] -> list[1]"
        assert why(Planted) == f"{way} -> {type_name(Planted)}"
        assert why(Slotted).startswith("Task 'request *' -> ")  # what nothing else leads to is the task's
        kept.append([Marked()])
        paths = objects.explain([name_of(each) for each in (Planted, Slotted, Marked)], 1)["paths"]
        assert paths[name_of(Planted)][0]["path"] == f"{way} -> {type_name(Planted)}"
        assert paths[name_of(Slotted)][0]["root"] == "task"
        own = f"module {__name__} -> global 'kept' -> list[1] -> list[1] -> {type_name(Marked)}"
        assert [row["path"] for row in paths[name_of(Marked)]] == [own]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    try:
        asyncio.run(main())
    finally:
        del library.handlers  # type: ignore[attr-defined]


def cached(most: int | None) -> Any:
    plant = functools.lru_cache(maxsize=most)(lambda _: Planted())
    plant(1)
    return plant


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: deque([Planted()], maxlen=500), "deque[1 of at most 500]"),
        (lambda: cached(None), "functools._lru_cache_wrapper without a bound"),
        (lambda: cached(9), "functools._lru_cache_wrapper of at most 9"),
    ],
)
def test_a_container_with_a_bound_is_told_with_it(make: Callable[[], Any], shown: str) -> None:
    """Who reads `deque[1]` cannot know that it fills and is then at its end; nor that a cache of functions never is."""
    kept.append(make())
    assert f" -> {shown} -> " in why(Planted)


def test_garbage_that_waits_for_the_collector_is_said_to_be_reached_from_nowhere() -> None:
    gc.collect()
    gc.disable()
    try:
        first, second = Planted(), Planted()
        first.other, second.other = second, first  # type: ignore[attr-defined]
        del first, second
        assert why(Planted) == CYCLE_TEXT
        assert root_of(Planted) == "cycle"
    finally:
        gc.enable()
        gc.collect()


def test_a_class_of_a_function_that_is_over_keeps_nothing() -> None:
    """ctypes makes a class for each library that is opened: such garbage was told as kept alive by its own class."""
    gc.collect()
    gc.disable()
    try:
        type_of_a_request()
        assert root_of(Planted) == "cycle"
    finally:
        gc.enable()
        gc.collect()


def type_of_a_request() -> None:
    class Request:
        body = Planted()

    assert Request.body


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_a_timer_keeps_alive_is_its_event_loops(loop: str) -> None:
    """A loop of C is in no namespace, and its own code alone refers to it: its timers were told as lost in C."""

    async def main() -> None:
        asyncio.get_running_loop().call_later(3600, [Planted()].clear)
        assert "TimerHandle" in why(Planted)
        assert "that no object has" not in why(Planted)
        if loop == "uvloop":
            assert why(Planted).startswith("event loop uvloop.Loop")
            assert root_of(Planted) == "loop"

    (uvloop if loop == "uvloop" else asyncio).run(main())


def test_an_object_whose_reference_was_lost_in_c_is_told_from_garbage() -> None:
    """ "Reached from no module, task or frame", high confidence, with the advice to look for a container: there is none."""
    lost = Planted()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(lost))
    address = id(lost)
    try:
        del lost
        assert why(Planted) == LOST_TEXT
        assert root_of(Planted) == "lost"
    finally:
        ctypes.pythonapi.Py_DecRef(ctypes.cast(address, ctypes.py_object))


def test_samples_are_of_what_is_new_since_the_first_look_and_not_of_what_was_there() -> None:
    """Many small old objects that a library keeps outvoted the few large new ones: "kept alive by uvicorn's STATUS_LINE"."""
    kept.append([])
    Planted.registry.update({number: bytes(40 + number % 3) for number in range(20_000)})
    first = FirstLook()
    objects.census(mark=first)
    kept[0].extend(bytes(3000) for _ in range(200))
    Planted.registry.update({number: bytes(45) for number in range(20_000, 20_400)})
    told = objects.explain(["bytes"], 12, first=first)["paths"]["bytes"]
    assert told[0]["path"].endswith("global 'kept' -> list[1] -> list[200] -> bytes")
    assert told[0]["samples"] >= 10
    first.close()


def test_a_buffer_that_grows_in_place_is_named_and_not_the_small_new_ones_beside_it() -> None:
    """A bytearray that everything is appended to is no new object: the way to a new one of ten bytes was shown in its place."""
    kept.append(bytearray(100_000))
    kept.append(bytearray(3_000_000))
    Planted.registry["log"] = bytearray(50_000)
    first = FirstLook()
    objects.census(mark=first)
    kept[0].extend(bytes(400_000))
    Planted.registry["log"].extend(bytes(50_000))
    kept.append([bytearray(10) for _ in range(20)])
    told = objects.explain(["bytearray"], 12, first=first)["paths"]["bytearray"]
    assert told[0]["path"].endswith("global 'kept' -> list[3] -> bytearray")
    assert told[0]["samples"] >= 10
    first.close()


def test_lists_of_the_reading_itself_are_no_samples_of_lists() -> None:
    first = FirstLook()
    objects.census(mark=first)
    kept.extend([number] for number in range(20_000))
    told = objects.explain(["list"], 12, first=first)["paths"]["list"]
    assert {way["root"] for way in told} == {"module"}  # the list that they are in has grown, too
    first.close()


def test_ids_that_the_reading_keeps_are_no_samples_of_numbers() -> None:
    first = FirstLook()
    objects.census(mark=first)
    kept.extend(range(10**6, 10**6 + 500))
    told = objects.explain(["int"], 12, first=first)["paths"]["int"]
    assert [way["path"].endswith("global 'kept' -> list[500] -> int") for way in told] == [True], told
    first.close()


def test_numbers_are_counted_with_what_holds_them() -> None:
    gc.collect()  # or numbers in garbage of other tests go in between
    before = objects.census()["types"]
    kept.append([number + 0.5 for number in range(10_000)])
    kept.append(list(range(1000, 11_000)))
    after = objects.census()["types"]
    assert after["float"][0] - before.get("float", [0])[0] >= 10_000
    assert after["int"][0] - before["int"][0] >= 9_900  # some of them are somebody's constants


def test_more_numbers_than_can_be_remembered_are_left_out_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert objects.census()["numbers"] is True
    monkeypatch.setattr(everything, "_MAX_NUMBERS", 1000)
    kept.extend([number + 0.5 for number in range(3_000)] for _ in range(3))
    told = objects.census()
    assert told["numbers"] is False
    assert not {"int", "float"} & told["types"].keys()
    assert any("more than 1,000" in why for why in told["not_covered"])


def test_a_thread_is_a_root_and_its_frames_are_named_without_keeping_what_they_hold() -> None:
    begun, ends = threading.Event(), threading.Event()

    def works() -> None:
        backlog = [Planted()]
        begun.set()
        ends.wait()
        del backlog[:]
        alone = [0]
        assert sys.getrefcount(backlog) == sys.getrefcount(alone)
        begun.set()
        ends.wait()

    thread = threading.Thread(target=works, name="pump 7")
    thread.start()
    assert begun.wait(30)
    held = threads.frames_with_locals()
    told = objects.explain([name_of(Planted)], 4, threads=held)["paths"][name_of(Planted)]
    assert told[0]["root"] == "thread"
    assert told[0]["path"].startswith("thread 'pump *' -> test_a_thread_is_a_root_and_its_frames_are_named")
    assert told[0]["path"].endswith(f"local 'backlog' -> list[1] -> {type_name(Planted)}")
    del held
    locals()  # this thread is read as well, and its frame has kept a copy of what it held then
    begun.clear()
    ends.set()
    assert begun.wait(30)  # nothing but the thread held its list: what was read of the frame was given back
    thread.join()


KEPT: dict[str, list[Any]] = {"for good": []}


def test_what_is_kept_for_good_is_not_told_as_a_frame_s_that_just_puts_it_there() -> None:
    begun, ends = threading.Event(), threading.Event()

    def puts(planted: Any) -> None:
        KEPT["for good"].append(planted)
        begun.set()
        ends.wait()

    thread = threading.Thread(target=puts, args=(Planted(),))
    thread.start()
    try:
        assert begun.wait(30)
        told = objects.explain([name_of(Planted)], 4, threads=threads.frames_with_locals())["paths"][name_of(Planted)]
        assert [row["root"] for row in told] == ["module"]
        assert f"global 'KEPT' -> dict[1][<str of 8>] -> list[1] -> {type_name(Planted)}" in told[0]["path"]
    finally:
        ends.set()
        thread.join()
        KEPT["for good"].clear()


def test_a_task_that_is_done_is_no_root_so_that_its_holder_is_named() -> None:
    async def works() -> Planted:
        return Planted()

    async def main() -> None:
        kept.append(asyncio.ensure_future(works()))
        await asyncio.sleep(0.01)
        assert why(Planted) == f"module {__name__} -> global 'kept' -> list[1] -> Task 'Task-*' -> {type_name(Planted)}"

    asyncio.run(main())


def test_tasks_that_are_done_in_a_cache_of_a_library_are_told_by_the_cache() -> None:
    """Each task keeps its exception and that its frames: the way began at the task, as if it were what lives."""
    import email.mime.base as library

    async def fails() -> None:
        planted = Planted()
        raise ValueError(planted)

    async def main() -> None:
        task = asyncio.ensure_future(fails())
        await asyncio.wait([task])
        remember = functools.lru_cache(maxsize=None)(lambda key: key)
        remember(task)
        library.cached = remember  # type: ignore[attr-defined]
        del task, remember
        assert why(Planted).startswith("module email.mime.base -> global 'cached' -> functools._lru_cache_wrapper")

    try:
        asyncio.run(main())
    finally:
        del library.cached  # type: ignore[attr-defined]


def test_what_runs_at_a_fork_is_a_root_that_is_named() -> None:
    """A hook that each object registers for itself and cannot take back: in a process of its own, it stays for ever."""
    code = (
        "import os\n"
        "from diagnostics.agent.readings import objects\n"
        "class Planted:\n"
        "    def again(self): ...\n"
        "for _ in range(3): os.register_at_fork(after_in_child=Planted().again)\n"
        "print(objects.explain(['__main__.Planted'], 3)['paths']['__main__.Planted'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, timeout=60)
    assert "os.register_at_fork(after_in_child) -> list[" in done.stdout
    assert "method Planted.again -> main__.Planted" in done.stdout


def test_what_runs_at_the_end_or_at_a_signal_is_a_root_that_is_named() -> None:
    """Each request registered the end of its own job: its holder was "a reference that no object has"."""
    code = (
        "import atexit, functools, signal\n"
        "from diagnostics.agent.readings import objects\n"
        "class Job:\n"
        "    def close(self, *_arguments): ...\n"
        "class Chained(Job): ...\n"
        "for _ in range(3): atexit.register(Job().close)\n"
        "for _ in range(3):\n"
        "    before, job = signal.getsignal(signal.SIGUSR1), Chained()\n"
        "    signal.signal(signal.SIGUSR1, lambda *_, before=before, job=job: job)\n"
        "del before, job\n"
        "for ways in objects.explain(['__main__.Job', '__main__.Chained'], 3)['paths'].values(): print(ways)\n"
        "atexit.register(print, 'all are called')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, timeout=60)
    assert "'atexit.register -> list[" in done.stdout
    assert "-> method Job.close -> main__.Job'" in done.stdout
    assert "handler of SIGUSR1 -> function <lambda> -> dict[2]['job'] -> main__.Chained" in done.stdout
    assert done.stdout.endswith("all are called\n")


def test_what_threads_keep_for_themselves_is_gone_in_a_child_and_is_measured_by_that() -> None:
    code = (
        "import os, threading\n"
        "from diagnostics.agent.operations import captures\n"
        "local, begun, ends = threading.local(), threading.Event(), threading.Event()\n"
        "def keeps():\n"
        "    local.jobs = [bytearray(20_000) for _ in range(500)]\n"
        "    begun.set()\n"
        "    ends.wait()\n"
        "threading.Thread(target=keeps).start()\n"
        "begun.wait()\n"
        "work = captures.census(None).work\n"
        "pid = os.fork()\n"
        "if not pid: os._exit(9_000_000 < work()['freed'] < 12_000_000)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "ends.set()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, encoding="utf-8", timeout=60
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_what_c_code_holds_is_told_from_there_on() -> None:
    """A parser whose callback a library in C keeps: each object below it was "held by a reference that no object has"."""
    parser = Slotted()
    parser.held = {"found": Planted()}  # type: ignore[attr-defined]
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(parser))
    address = id(parser)
    try:
        del parser
        assert why(Planted).startswith(
            f"(a reference that no object has: C code's) -> {type_name(Slotted)}.held -> dict[1]"
        )
        assert root_of(Planted) == "lost"
    finally:
        ctypes.pythonapi.Py_DecRef(ctypes.cast(address, ctypes.py_object))


def test_an_owner_of_the_application_is_named_before_one_of_a_library() -> None:
    import email.mime.base as library

    planted = Planted()
    library.leaks = planted  # type: ignore[attr-defined]  # at the same distance from its module, and nearer than ours
    kept.append([[planted]])
    del planted
    try:
        assert why(Planted).startswith(f"module {__name__} -> global 'kept'")
        kept.clear()
        assert why(Planted) == f"module email.mime.base -> global 'leaks' -> {type_name(Planted)}"
    finally:
        del library.leaks  # type: ignore[attr-defined]


def test_what_a_class_holds_that_was_made_as_the_program_runs_is_told_by_what_keeps_the_class() -> None:
    """Schemas that were made for each request stayed in a registry: every class was a root, and the registry unnamed."""
    import email.mime.base as library

    made = [type("Message", (), {"held": Planted()}) for _ in range(3)]
    library.registry = {"Message": made}  # type: ignore[attr-defined]
    del made
    try:
        (way, *_) = objects.explain([name_of(Planted)], 3)["paths"][name_of(Planted)]
        assert way["path"].startswith(
            "module email.mime.base -> global 'registry' -> dict[1]['Message'] -> list[3] -> "
        )
        assert way["root"] == "module"
    finally:
        del library.registry  # type: ignore[attr-defined]
        gc.collect()  # a class and its attributes hold each other


def test_what_the_agent_itself_keeps_is_no_candidate() -> None:
    """A verdict named an object of our own agent as what grows."""
    ledger = StreamLedger()
    kept.append(ledger)
    assert name_of(StreamLedger) not in objects.census()["types"]
    ledger.planted = Planted()  # type: ignore[attr-defined]
    assert objects.explain([name_of(Planted)], 4)["paths"][name_of(Planted)] == []


def test_texts_that_are_keys_are_counted_and_their_holder_is_named() -> None:
    """CPython's traversal of a dictionary leaves them out: they were "in no container of Python's", which C code had lost."""
    ordered: collections.OrderedDict[str, int] = collections.OrderedDict()
    counted: collections.Counter[str] = collections.Counter()
    kept.extend([{}, ordered, counted, {1: 1}])
    first = FirstLook()
    before = objects.census(mark=first)
    for number in range(3000):
        for mapping in kept:
            mapping[f"{number} of a caller's own id {id(mapping)}"] = number
    after = objects.census()
    gained = after["types"]["str"][0] - before["types"]["str"][0]
    assert 11_900 <= gained <= 16_000  # with the keys of `before`
    rows, unknown = unheld(before, after)
    assert unknown is None
    assert not [row for row in rows or () if row["type"] == "str" and row["count_delta"] > 2_000]
    told = objects.explain(["str"], 12, first=first)["paths"]["str"]
    first.close()
    way_to_kept = f"module {__name__} -> global 'kept' -> list[4] -> "
    ours = [way for way in told if way["path"].startswith(way_to_kept)]
    # The first answer has new texts as well, and a sample may be one of them.
    assert sum(way["samples"] for way in ours) >= 9
    holders = {re.split(r"\W", way["path"].removeprefix(way_to_kept))[0] for way in ours}
    assert holders == {"dict", "OrderedDict", "Counter"}


@pytest.mark.parametrize(("appended", "told"), [(0, "list[900 of at most 5000]"), (10, "list[5010]")])
def test_a_list_that_was_made_with_all_its_places_fills_and_does_not_grow(appended: int, told: str) -> None:
    """A ring of a million places that was being filled was a list of a million entries, as if it had grown."""
    places: list[Any] = [None] * 5000
    places[:600] = [Large() for _ in range(600)]
    kept.append(places)
    first = FirstLook()
    objects.census(mark=first)
    places[600:900] = [Large() for _ in range(300)]
    places += [Large() for _ in range(appended)]
    ways = objects.census(since=first, tracing=objects.Tracing(12))["paths"][name_of(Large)]
    first.close()
    assert [way["path"].rpartition("list[1] -> ")[2] for way in ways] == [f"{told} -> {type_name(Large)}"]


def test_what_grew_is_traced_by_the_second_look_itself_and_no_list_of_the_walk_is_in_its_way() -> None:
    first = FirstLook()
    objects.census(mark=first)
    kept.extend({"a": Large()} for _ in range(500))
    cycle = [Large()]
    cycle[0].me = cycle
    del cycle
    answer = objects.census(since=first, tracing=objects.Tracing(12))
    traced_later = objects.explain([name_of(Large)], 12, first=first)["paths"][name_of(Large)]
    first.close()
    assert answer["paths"][name_of(Large)][0] == traced_later[0]
    assert answer["paths"]["dict"][0]["path"].endswith("list[500] -> dict[1]")


def test_ways_through_many_objects_have_their_beginning_in_common() -> None:
    """Of ways longer than fourteen parts the middle was left out from the seventh on, and of two types there it differed."""

    class Layer:
        def __init__(self, inside: Any) -> None:
            self.inside = inside

    entries: list[Any] = []
    outer: Any = entries
    for _ in range(12):
        outer = Layer(outer)
    kept.append(outer)
    entries.extend([Planted(), [Layer(Planted())]] for _ in range(200))
    told = objects.explain([name_of(Planted)], 12)["paths"][name_of(Planted)]
    assert all("list[200] -> list[2]" in way["path"] for way in told), told
