"""A small part of `make replicas`, and what docs/deploy promises of a rolling restart and of a fail-over of Redis."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .clients import Client, Wanted
from .cluster import Cluster, Redis
from .failover import FailOver
from .record import Record, table
from .run import closed, run_seeds
from .seeds import Outcome, plan_of

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.needs("nginx", "nginx"),
    pytest.mark.needs("redis-server", "redis-server"),
]


class Shared(NamedTuple):
    redis: Redis
    cluster: Cluster
    folder: Path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("replicas")
    with closed(Redis(folder)) as redis, Cluster.started(folder, redis.url) as cluster:
        yield Shared(redis, cluster, folder)


@pytest.mark.long
def test_seeds_of_make_replicas_side_by_side(tmp_path: Path) -> None:
    """In each one relay is killed, one drained, Redis restarted: no stream loses an event, but those of the killed relay."""
    record = Record(tmp_path / "record.json")
    options = argparse.Namespace(streams=12, seconds=math.inf, clusters=2)
    failed = asyncio.run(run_seeds(options, [3, 4, 5], record))
    assert failed == 0
    assert [entry["wrong"] for entry in record.entries if entry["wrong"]] == []
    assert record.done() == {3, 4, 5}
    counts = sum((Counter(entry["counts"]) for entry in record.entries), Counter())  # after midnight there are two
    assert counts.total() == 36
    assert set(counts) <= {"whole", "stream_broken", "stream_not_found"}
    assert plan_of(3, 12) == plan_of(3, 12) != plan_of(4, 12)


def test_what_was_run_is_kept_and_goes_on_where_it_was(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    for seed, wrong in ((7, []), (3, ["this", "and that"])):
        counts = Counter(whole=9, stream_broken=1) if not wrong else Counter(whole=8, WRONG=2)
        Record(file).add(Outcome(seed, 10, counts, connections=40, paid=11, wrong=wrong))
    record = Record(file)
    assert record.done() == {3, 7}
    written = table([*record.entries, {**record.entries[0], "plans": 0}])
    assert written.startswith("2 seeds of the 1,000 aimed at, with 20 streams over 80 connections, from 20")
    assert "asked for 22 answers. Seeds after which not all was as it should be: 1." in written
    assert "once, in order, and the upstream's text | 17 |" in written
    assert "anything else | 2 |" in written


def stream(cluster: Cluster, streams: int, work: Callable[[], Any]) -> list[Client]:
    """Clients that are cut off three times each, while `work` is done in a thread."""
    chance = random.Random(7)
    clients = [Client(Wanted.of(chance), cluster.port) for _ in range(streams)]

    async def run() -> None:
        working = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.gather(working, *(client.run() for client in clients))

    asyncio.run(run())
    return clients


@pytest.mark.long
def test_a_rolling_restart_loses_no_stream(shared: Shared) -> None:
    codes: list[int] = []
    before = shared.cluster.asked()

    def restart_both() -> None:
        codes.extend(shared.cluster.replace(number, signal.SIGTERM) for number in range(2))

    clients = stream(shared.cluster, 12, restart_both)
    assert shared.cluster.asked() == before + 12, "each answer was paid once"
    assert codes == [0, 0]
    logged = (shared.folder / "access.log").read_text(encoding="utf-8")
    assert "GET /stream" in logged
    assert "?" not in logged, "a query may hold a prompt or a signature"
    assert [client.outcome for client in clients] == ["whole"] * 12, [client.story for client in clients]


@pytest.mark.long
@pytest.mark.parametrize(
    "by_haproxy",
    [
        pytest.param(True, id="haproxy", marks=pytest.mark.needs("haproxy", "haproxy")),
        pytest.param(False, id="sentinel"),
    ],
)
def test_a_fail_over_of_redis_loses_no_stream(
    tmp_path: Path,
    by_haproxy: bool,
    subscribe: Callable[..., Any],
    http: Callable[..., Any],
    eventually: Callable[..., Any],
) -> None:
    with (
        FailOver.started(tmp_path, by_haproxy=by_haproxy) as redis,
        Cluster.started(tmp_path, redis.url, RELAY_SHARED_LIMITS="true", RELAY_KEY_RATE="1000") as cluster,
    ):
        there = {"resume": "redis", "limits": "redis"}
        away = {"resume": "redis_away", "limits": "redis_away"}
        news = f"http://127.0.0.1:{cluster.port}/v1/topics/news"
        one = subscribe(news, again=True)
        eventually(lambda: one.raw)
        assert http(news, "POST", b'"before"').status == 201
        eventually(lambda: one.data == ['"before"'])
        (ended,) = stream(cluster, 1, lambda: None)
        other = 1 - [cluster.address(number) for number in range(2)].index(ended.owner)
        refused: list[Any] = []

        def ask_elsewhere() -> None:
            """Without Redis the other relay cannot know the stream, says so, and goes by its own limits."""
            url = f"http://{cluster.address(other)}/v1/streams/{ended.stream}"

            def asked() -> bool:
                refused.append(http(url))
                return (refused[-1].status, cluster.state(other)) == (503, cluster.state(other) | away)

            eventually(asked)

        clients = stream(cluster, 12, lambda: redis.kill_primary(ask_elsewhere))
        assert json.loads(refused[-1].body)["error"]["code"] == "resume_unavailable"
        # Of a stream that was going on meanwhile, everything is in the Redis that is the primary now.
        again = [Client(client.wanted, cluster.port, stream=client.stream) for client in (*clients, ended)]

        async def read() -> None:
            await asyncio.gather(*(client.run() for client in again))

        asyncio.run(read())
        assert cluster.asked() == 13
        eventually(lambda: http(news, "POST", b'"after"').status == 201)
        eventually(lambda: one.data[-1:] == ['"after"'])
        for number in range(2):
            eventually(lambda number=number: cluster.state(number) | there == cluster.state(number))
    assert [client.outcome for client in clients] == ["whole"] * 12, [client.story for client in clients]
    assert [client.events for client in again] == [client.events for client in (*clients, ended)]
