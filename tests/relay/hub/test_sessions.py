"""A broken session with Redis leaves its task without a pending cancellation."""

from __future__ import annotations

import asyncio

import pytest

from relay.hub.redis import _until_one_fails


def test_what_fails_is_raised_and_the_task_does_not_count_as_being_cancelled() -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waits")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ConnectionResetError("redis has gone")

    async def run() -> int:
        with pytest.raises(ConnectionResetError):
            await _until_one_fails(asyncio.create_task(waits()), asyncio.create_task(fails()))
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert asyncio.run(run()) == 0
    assert ended == ["waits"]


def test_its_own_cancellation_ends_all() -> None:
    async def run() -> bool:
        waiting = asyncio.create_task(asyncio.Event().wait())
        session = asyncio.create_task(_until_one_fails(waiting))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        session.cancel()
        with pytest.raises(asyncio.CancelledError):
            await session
        return waiting.cancelled()

    assert asyncio.run(run())
