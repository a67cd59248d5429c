"""The ends of streams as events of a topic: their facts, no text of callers in them, and no stream that waits for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from relay.errors import OverloadedError
from relay.hub.events_out import STREAM_ENDED, EventsOut
from relay.stream.ending import Ending

Start = Callable[..., Any]


def test_the_end_of_each_stream_is_an_event(
    start: Start, subscribe: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    relay = start("--no-diagnostics", "--stream-events-topic", "ended", announced=2)
    subscriber = subscribe(f"{relay.url}/v1/topics/ended")
    eventually(lambda: subscriber.answers == [200])
    relay.chat("sim:events=5,pace=0,seed=1", stream_options={"include_usage": True})
    relay.chat("sim:pace=0,fault=disconnect@1")
    with relay.open("sim:events=inf,pace=100") as connection:
        assert connection.recv(100)
    eventually(lambda: len(subscriber.told("stream_ended")) == 3)

    completed, failed, left = subscriber.told("stream_ended")
    assert (completed["outcome"], completed["route"]) == ("completed", "/v1/chat/completions")
    assert completed["output_tokens"] == 5
    (logged,) = relay.endings(outcome="completed")
    clocks = ("time", "duration_seconds")  # each took its own look
    assert logged.items() >= {name: value for name, value in completed.items() if name not in clocks}.items()
    assert (failed["outcome"], failed["error_type"]) == ("upstream_error", "upstream_unreachable")
    assert "error" not in failed  # its sentence is the log's
    assert left["outcome"] == "client_disconnected"
    # The subscription itself is a stream, too, but no relayed one: its end is not told.
    subscriber.stop()
    eventually(lambda: len(relay.endings(route="/v1/topics/{topic}")) == 1)
    assert not any(b"sim:" in line for line in subscriber.raw.splitlines())


def test_nobody_else_can_publish_such_an_event(start: Start) -> None:
    relay = start("--no-diagnostics", "--stream-events-topic", "ended", announced=2)
    answer = relay.ask("POST", f"/v1/topics/ended?event={STREAM_ENDED}", b"{}", {})
    assert answer.status == 400


class Hub:
    """Publishes when it is let, or refuses."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.refuses = False
        self.published: list[dict[str, Any]] = []

    async def publish(self, name: str, body: bytes) -> Any:
        await self.let.wait()
        if self.refuses:
            raise OverloadedError("no room for one more topic", 1.0)
        self.published.append(json.loads(body.split(b"data: ")[1]))


@pytest.fixture
def hub() -> Any:
    return Hub()


def test_what_finds_no_room_is_lost_and_the_rest_is_published_at_the_end(hub: Any) -> None:
    async def live() -> EventsOut:
        out = EventsOut(hub, "ended", max_waiting=3)
        async with out.serving():
            await asyncio.sleep(0)  # the task waits
            for number in range(10):
                out.ended(Ending("completed", bytes_out=number), None)
            hub.let.set()
        return out

    out = asyncio.run(live())
    assert [each["bytes_out"] for each in hub.published] == [0, 1, 2]
    assert out.counts == {"delivered": 3, "queue_full": 7}
    assert out.statistics()["bytes"] == 0


def test_a_hub_that_refuses_or_hangs_holds_nobody_up(hub: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def live() -> tuple[EventsOut, float]:
        loop = asyncio.get_running_loop()
        out = EventsOut(hub, "ended")
        async with out.serving():
            hub.refuses = True
            hub.let.set()
            for _ in range(5):
                out.ended(Ending("completed"), "0" * 32)
            while out.lost < 5:
                await asyncio.sleep(0.01)
            hub.let.clear()
            out.ended(Ending("completed"), None)
            began = loop.time()
        return out, loop.time() - began

    out, waited = asyncio.run(live())
    assert out.counts == {"delivered": 0, "refused": 5, "shutdown": 1}
    assert waited < 5
    assert [record.message for record in caplog.records] == [
        "ends of streams were not published",
        "ends of streams were not published before the shutdown",
    ]
