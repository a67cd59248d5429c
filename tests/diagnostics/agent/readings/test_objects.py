"""The census and the ways to what is alive, on objects whose number, size and holders are known."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import Any, ClassVar

import pytest

from diagnostics.agent.readings import objects
from diagnostics.agent.readings.graph import size_of, type_name

kept: list[Any] = []
variable: contextvars.ContextVar[Any] = contextvars.ContextVar("request_state", default=None)


class Planted:
    """A type of its own, so that nobody else has any."""

    registry: ClassVar[dict[Any, Any]] = {}


class Slotted:
    __slots__ = ("held",)


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


@pytest.fixture(autouse=True)
def nothing_kept() -> Any:
    yield
    kept.clear()
    Planted.registry.clear()


def test_a_census_counts_each_object_once_with_what_the_collector_does_not_track() -> None:
    before = objects.census()["types"]
    text = "x" * 500_000 + "y"
    kept.extend([Planted(), Planted(), {"a": text, "b": text, "c": bytes(70_000)}, (bytes(30_000),)])
    after = objects.census()["types"]
    assert after[name_of(Planted)][0] == 2
    grown = after["bytes"][1] - before["bytes"][1]
    assert 90_000 <= grown < 110_000
    assert 450_000 <= after["str"][1] - before["str"][1] < 550_000


def test_an_object_is_sized_and_named_without_running_its_code() -> None:
    kept.append(Hostile())
    assert size_of(kept[0]) == object.__sizeof__(kept[0])
    assert size_of(bytes(1000)) == sys.getsizeof(bytes(1000))
    assert objects.census()["types"][name_of(Hostile)][0] == 1
    assert why(Hostile) == f"module {__name__} -> global 'kept' -> list[1] -> {type_name(Hostile)}"


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


@pytest.mark.parametrize("key", ["a prompt with words", "x" * 41, 4711, ("a", 1)])
def test_keys_that_are_data_are_not_shown(key: Any) -> None:
    kept.append({key: Planted()})
    assert why(Planted) == f"module {__name__} -> global 'kept' -> list[1] -> dict[1] -> {type_name(Planted)}"


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

        async def carries() -> None:
            variable.set(Planted())
            await asyncio.sleep(60)

        task = asyncio.create_task(carries(), name="carrier")
        await asyncio.sleep(0)
        assert why(Planted) == f"Task 'carrier' -> context variable 'request_state' -> {type_name(Planted)}"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_garbage_that_waits_for_the_collector_is_said_to_be_reached_from_nowhere() -> None:
    import gc

    gc.collect()
    gc.disable()
    try:
        first, second = Planted(), Planted()
        first.other, second.other = second, first  # type: ignore[attr-defined]
        del first, second
        assert why(Planted) == objects.UNREACHED
    finally:
        gc.enable()
        gc.collect()
