"""Incomplete request bodies: their charge to the budget is given back at once, even while the error is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from relay.api.bodies import Bodies
from relay.errors import BodyTimeoutError, BodyTooLargeError, NoRoomForBodyError
from relay.memory.requests import RequestBudget

LIMIT = 1000


def read(budget: RequestBudget, *messages: dict[str, Any]) -> BaseException:
    """What reading a body ends with that comes in these messages, and then waits for ever."""
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    bodies = Bodies(0.05, budget, lambda reason, cause="": None)
    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(Exception) as raised:  # which one is what the tests look at
        asyncio.run(bodies.read(request, LIMIT))
    return raised.value


def part(nbytes: int) -> dict[str, Any]:
    return {"type": "http.request", "body": bytes(nbytes), "more_body": True}


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ((part(7),), BodyTimeoutError),
        ((part(7), {"type": "http.disconnect"}), ClientDisconnect),
        ((part(700), part(700)), BodyTooLargeError),
        ((part(700), part(200)), NoRoomForBodyError),
    ],
    ids=["late", "left", "too large", "no room"],
)
def test_a_body_that_fails_is_held_by_nobody_while_its_error_is_kept(
    messages: tuple[dict[str, Any], ...], error: type[Exception]
) -> None:
    budget = RequestBudget(800)
    kept = read(budget, *messages)
    assert isinstance(kept, error)
    assert budget.bodies == 0
    assert not [value for value in locals_of(kept) if value and isinstance(value, bytes | list | dict)]


def locals_of(error: BaseException) -> list[object]:
    """The variables of the reader's frame, in the tracebacks of the error and of what it came from."""
    found: list[object] = []
    chain: BaseException | None = error
    while chain is not None:
        traceback = chain.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_code is Bodies._read.__code__:
                found += traceback.tb_frame.f_locals.values()
            traceback = traceback.tb_next
        chain = chain.__context__
    return found
