"""The steps at a request's end run in order, one in each turn of the loop, and none is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from relay.telemetry.loop_turns import LoopTurns


def test_each_step_has_a_turn_of_its_own() -> None:
    async def run() -> list[str]:
        turns, seen = LoopTurns(), []

        def step(name: str) -> Callable[[], None]:
            return lambda: seen.append(name)

        turns.take(step("a1"), step("a2"), step("a3"))
        turns.take(step("b1"), step("b2"))
        for turn in range(4):
            seen.append(f"turn {turn}")
            await asyncio.sleep(0)
        await turns.over()
        return seen

    assert asyncio.run(run()) == ["turn 0", "a1", "b1", "turn 1", "a2", "b2", "turn 2", "a3", "turn 3"]


def test_over_waits_for_all_that_were_taken() -> None:
    async def run() -> int:
        turns = LoopTurns()
        done = 0

        def step() -> None:
            nonlocal done
            done += 1

        for _ in range(100):
            turns.take(step, step, step)
        await turns.over()
        await turns.over()
        return done

    assert asyncio.run(run()) == 300


def test_a_step_that_fails_is_reported_and_those_after_it_are_taken() -> None:
    async def run() -> tuple[list[str], list[BaseException]]:
        failures: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
        turns, seen = LoopTurns(), []

        def fails() -> None:
            raise ZeroDivisionError

        turns.take(fails, lambda: seen.append("second"))
        turns.take(lambda: seen.append("other"))
        turns.take(fails)
        await turns.over()
        return seen, failures

    seen, failures = asyncio.run(run())
    assert sorted(seen) == ["other", "second"]
    assert [type(failure) for failure in failures] == [ZeroDivisionError] * 2
