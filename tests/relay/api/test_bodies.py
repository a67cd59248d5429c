"""Incomplete request bodies: their charge to the budget is given back at once, even while the error is kept."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, cast

import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request

from relay.api.bodies import Bodies
from relay.api.topics import add_topics
from relay.errors import BodyTimeoutError, BodyTooLargeError, NoRoomForBodyError
from relay.hub.ids import NOTHING, EventId, next_id
from relay.memory.requests import RequestBudget
from relay.settings import Settings

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


class KeepsWhatItCaught:
    """A hub that works and keeps an error that it caught, as the client of a Redis does that does not have its script yet.

    From Python 3.12 on the traceback keeps the frames of all callers.
    """

    def __init__(self) -> None:
        self.caught: list[BaseException] = []

    async def publish(self, name: str, body: bytes) -> EventId:
        try:
            await self._unknown_script()
        except ValueError as error:
            self.caught.append(error)
        return next_id(NOTHING, 1)

    async def _unknown_script(self) -> None:
        await asyncio.sleep(0)
        raise ValueError("NOSCRIPT")


def test_a_published_body_is_held_by_nobody_while_an_error_of_the_hub_is_kept() -> None:
    budget, hub, told = RequestBudget(1000), KeepsWhatItCaught(), []
    api = FastAPI()
    bodies = Bodies(5.0, budget, lambda reason, cause="": None)

    async def let_in(_: Any) -> None:
        pass

    add_topics(api, Settings(), let_in, cast("Any", None), cast("Any", lambda: hub), bodies)
    messages = [{"type": "http.request", "body": b'{"n":0}', "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        told.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/topics/t", "query_string": b"", "headers": [], "http_version": "1.1",
        "scheme": "http", "server": ("localhost", 80), "client": ("localhost", 1), "root_path": "",
    }  # fmt: skip
    asyncio.run(api(scope, receive, send))
    assert told[0]["status"] == 201
    assert hub.caught
    assert budget.bodies == 0
