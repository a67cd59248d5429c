"""The verdict over constructed readings: each cause, what looks like it and is not, and how little is said without readings."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.analysis.balance import PARTS
from diagnostics.analysis.lives import Life
from diagnostics.analysis.verdict.causes import CAUSES
from diagnostics.analysis.verdict.readings import MIB, Readings
from diagnostics.analysis.verdict.service import Told, verdict_on_whole
from diagnostics.analysis.verdict.verdict import verdict

SECONDS = 120
Line = Callable[[int], float]


def line(of: Line) -> list[tuple[float, float]]:
    return [(float(second), of(second)) for second in range(SECONDS)]


def flat(value: float) -> list[tuple[float, float]]:
    return line(lambda second: value + 1000 * (second % 3))


def series(**lines: list[tuple[float, float]]) -> dict[str, list[tuple[float, float]]]:
    """Two minutes of a service that does nothing, but for what is given."""
    quiet = {
        "rss_bytes": flat(100 * MIB),
        "in_use_bytes": flat(60 * MIB),
        "python_live_bytes": flat(30 * MIB),
        "python_large_blocks": line(lambda second: 1200),
        "tasks": line(lambda second: 10),
        "outgoing_connections": line(lambda second: 4),
        "open_streams": line(lambda second: 4),
    }
    return {**quiet, **lines}


def balance(**parts: int | None) -> dict[str, Any]:
    ordinary: dict[str, int | None] = dict.fromkeys(PARTS, 2 * MIB)
    ordinary |= {"python_live": 30 * MIB, "malloc_live": 30 * MIB, "mapped_files": 30 * MIB, **parts}
    return {"rss_bytes": sum(held for held in ordinary.values() if held), "parts": ordinary}


def readings(**given: Any) -> Readings:
    whole = {"state": "answering", "balance": balance(), "open_streams": 4, "series": series()}
    return Readings(**{**whole, **given})


def row(number: int, held: int, state: str = "blocked", **more: Any) -> dict[str, Any]:
    return {"id": number, "route": "/chat", "state": state, "held_bytes": held, "age_seconds": 9.0, **more}


GROWING = line(lambda second: 60 * MIB + 400_000 * second)


def test_streams_that_are_buffered_are_named_with_their_layer() -> None:
    told = verdict(
        readings(
            layers={"app": 48 * MIB, "transport": 256_000, "kernel": 6 * MIB},
            streams=[row(7, 40 * MIB), row(9, 8 * MIB)],
            series=series(in_use_bytes=GROWING, buffered_app_bytes=line(lambda second: 400_000 * second)),
        )
    )
    assert (told.word, told.finding.confidence, told.finding.layer) == ("buffering", "high", "app")
    assert told.finding.streams == ("7", "9")
    assert "app layer of all open streams: 48.00 MiB" in [one.text for one in told.finding.evidence]
    assert told.also == ()  # the growth is that of the buffers, and no second cause


def test_full_queues_of_the_kernel_are_buffering_in_another_layer() -> None:
    told = verdict(readings(open_streams=50, layers={"app": 0, "transport": 3 * MIB, "kernel": 80 * MIB}))
    assert (told.word, told.finding.layer) == ("buffering", "kernel")


def test_many_streams_with_little_each_are_load() -> None:
    layers = {"app": 30 * MIB, "transport": 0, "kernel": 64 * MIB}
    assert verdict(readings(open_streams=1000, layers=layers)).word == "load_only"


def test_without_a_ledger_a_retained_capture_tells_buffering_for_certain() -> None:
    streams = [{"id": "Task-9", "route": "/chat", "retained_bytes": 20 * MIB}]
    captures = {"retained": {"total_bytes": 20 * MIB, "streams": streams}}
    told = verdict(readings(layers={"app": None, "transport": 100}, captures=captures))
    assert (told.word, told.finding.confidence, told.finding.streams) == ("buffering", "high", ("Task-9",))


def test_without_a_ledger_full_queues_while_memory_grows_are_a_weak_sign_of_buffering() -> None:
    rows = [row(1, 200_000, transport_bytes=70_000, kernel_bytes=130_000)]
    told = verdict(readings(layers={"app": None}, streams=rows, series=series(in_use_bytes=GROWING)))
    assert (told.word, told.finding.confidence) == ("buffering", "low")


def test_a_weak_sign_of_buffering_stands_before_no_surer_cause_and_yields_to_a_look() -> None:
    """One client that did not read was all that was told, for seven minutes, of a service that kept its texts in a list."""
    rows = [row(1, 200_000, transport_bytes=70_000, kernel_bytes=130_000)]
    grown = series(in_use_bytes=GROWING, python_live_bytes=GROWING)
    weak: dict[str, Any] = {"layers": {"app": None}, "streams": rows, "series": grown}
    told = verdict(readings(**weak))
    assert [(each.word, each.confidence) for each in (told.finding, *told.also)] == [
        ("buffering", "low"),
        ("retained_objects", "low"),  # as long as nobody has looked, what grows may be the streams'
    ]
    held = {"path": "module keeping -> global 'seen' -> list", "samples": 12, "root": "module"}
    told = verdict(readings(**weak, captures={"objects": census_of(held)}))
    assert (told.word, told.finding.confidence, told.also[0].word) == ("retained_objects", "high", "buffering")
    # In the first two minutes both are weak signs: the one that names somebody is told first.
    young = {name: points[40:] for name, points in grown.items()}
    told = verdict(readings(**{**weak, "series": young}, captures={"objects": census_of(held)}, age=90.0))
    assert (told.word, told.finding.confidence, told.finding.culprit) == ("retained_objects", "low", "app.Node")
    for taken, kept, words in (
        (119.0, MIB, ["retained_objects"]),
        (119.0, 20 * MIB, ["buffering", "retained_objects"]),
    ):
        captured = {"total_bytes": kept, "time": taken, "streams": []}
        told = verdict(readings(**weak, captures={"retained": captured}))
        assert [each.word for each in (told.finding, *told.also)] == words
        assert told.finding.confidence != "low"
    # What had been looked at before memory grew says nothing of what has.
    early = verdict(readings(**weak, captures={"retained": {"total_bytes": MIB, "time": 2.0, "streams": []}}))
    assert early.word == "buffering"


@pytest.mark.parametrize(
    "grown",
    [
        {"python_live_bytes": line(lambda second: 30 * MIB + 400_000 * second)},
        {"python_large_blocks": line(lambda second: 1200 + 100 * second)},
    ],
    ids=["small objects", "large objects"],
)
def test_objects_of_pythons_that_grow_are_retained(grown: Any) -> None:
    told = verdict(readings(series=series(in_use_bytes=GROWING, **grown)))
    assert (told.word, told.finding.confidence) == ("retained_objects", "medium")
    assert told.to_json("http://127.0.0.1:6060", "1")["next"].endswith("--kind objects --seconds 10 --worker 1")


def test_a_census_names_the_type_and_the_path() -> None:
    census = {
        "bytes_delta": 5 * MIB,
        "seconds": 10.0,
        "in_use_delta": 5 * MIB,
        "top": [{"type": "app.Notice", "bytes_delta": 5 * MIB}],
        "paths": {"app.Notice": [{"path": "app.history", "samples": 12}]},
    }
    told = verdict(readings(series=series(in_use_bytes=GROWING), captures={"objects": census}))
    assert (told.word, told.finding.confidence) == ("retained_objects", "high")
    assert "app.Notice, kept alive by app.history" in told.finding.says


def test_growth_without_pythons_blocks_is_native_and_a_census_makes_it_certain() -> None:
    grown = series(in_use_bytes=GROWING)
    assert verdict(readings(series=grown)).finding.confidence == "medium"
    census = {
        "bytes_delta": 1000, "seconds": 10.0, "in_use_delta": 4_000_000, "top": [{"type": "dict", "bytes_delta": 1000}]
    }  # fmt: skip
    told = verdict(readings(series=grown, captures={"objects": census}))
    assert (told.word, told.finding.confidence) == ("native_growth", "medium")  # nobody says that malloc handed it out
    malloc = {"malloc_live_bytes": line(lambda second: 30 * MIB + 400_000 * second)}
    told = verdict(readings(series={**grown, **malloc}, captures={"objects": census}))
    assert (told.word, told.finding.confidence) == ("native_growth", "high")
    del grown["python_large_blocks"]
    told = verdict(readings(series=grown))
    assert (told.word, told.alarm) == ("memory_growth", True)
    assert told.to_json()["next"] == "diagnostics capture URL --kind objects --seconds 30"


@pytest.mark.parametrize("blocks", [0.0, 1.0, 10.0])
def test_what_accounts_for_little_of_the_growth_is_not_named_as_its_cause(blocks: float) -> None:
    """A C library keeps 30 KB of each stream: the objects of the streams were called its cause, with high confidence."""
    grown = series(in_use_bytes=GROWING, python_large_blocks=line(lambda second: 1200 + blocks * second))
    census = {
        "bytes_delta": 400_000,
        "seconds": 10.0,
        "in_use_delta": 4_000_000,
        "top": [{"type": "asyncio.selector_events._SelectorSocketTransport", "bytes_delta": 300_000}],
        "paths": {"asyncio.selector_events._SelectorSocketTransport": [{"path": "class app.Warning", "samples": 12}]},
    }
    told = verdict(readings(series=grown, captures={"objects": census}))
    assert (told.word, told.finding.culprit) == ("native_growth", None)
    assert "_SelectorSocketTransport" not in str(told.to_json())
    # A census in whose time nothing grew says nothing of what does.
    told = verdict(readings(series=grown, captures={"objects": {**census, "in_use_delta": 0}}))
    assert told.finding.confidence != "high"
    assert "_SelectorSocketTransport" not in str(told.to_json())


def test_growth_that_a_capture_did_not_see_go_on_is_told_with_low_confidence() -> None:
    """A service that loads its tables when they are first asked for was accused, and still was when it had loaded them."""
    grown = series(in_use_bytes=GROWING, python_live_bytes=GROWING)
    census = {
        "bytes_delta": 10_000,
        "seconds": 10.0,
        "in_use_delta": 20_000,
        "top": [{"type": "dict", "bytes_delta": 9_000}],
    }
    told = verdict(readings(series=grown, captures={"objects": census}))
    assert (told.word, told.finding.confidence, told.finding.culprit) == ("retained_objects", "low", None)
    assert "it may have stopped" in told.finding.says


def test_a_type_that_grows_by_less_than_half_is_not_the_culprit_though_it_is_pythons() -> None:
    grown = series(in_use_bytes=GROWING, python_live_bytes=line(lambda second: 30 * MIB + 300_000 * second))
    census = {
        "bytes_delta": 3_500_000,
        "seconds": 10.0,
        "in_use_delta": 4_000_000,
        "top": [{"type": "dict", "bytes_delta": 1_500_000}, {"type": "list", "bytes_delta": 1_400_000}],
        "paths": {"dict": [{"path": "module app -> global 'A'", "samples": 12}]},
    }
    told = verdict(readings(series=grown, captures={"objects": census}))
    assert (told.word, told.finding.confidence, told.finding.culprit) == ("retained_objects", "medium", None)


def census_of(*ways: dict[str, Any]) -> dict[str, Any]:
    return {
        "bytes_delta": 4_000_000,
        "seconds": 10.0,
        "in_use_delta": 4_000_000,
        "top": [{"type": "app.Node", "bytes_delta": 3_900_000}],
        "paths": {"app.Node": list(ways)},
    }


def test_garbage_that_waits_for_the_collector_is_no_leak() -> None:
    grown = series(in_use_bytes=GROWING, python_live_bytes=GROWING)
    cycle = {"path": "(in a cycle that nothing reaches)", "samples": 5, "root": "cycle"}
    held = {"path": "module app -> global 'KEPT' -> list", "samples": 7, "root": "module"}
    told = verdict(readings(series=grown, captures={"objects": census_of(cycle, held)}))
    assert (told.word, told.alarm) == ("retained_objects", True)
    told = verdict(readings(series=grown, captures={"objects": census_of(cycle)}))
    assert (told.word, told.alarm) == ("waiting_garbage", False)


def test_garbage_that_no_collector_will_come_for_is_an_alarm() -> None:
    """With gc.disable() in the service it said "no leak", of memory that nothing would ever free."""
    cycle = {"path": "(in a cycle that nothing reaches)", "samples": 12, "root": "cycle"}
    stands = {"gc_collections_1": flat(7), "gc_collections_2": flat(3)}
    grown = series(in_use_bytes=GROWING, python_live_bytes=GROWING, **stands)
    census = {"objects": census_of(cycle)}
    told = verdict(readings(series=grown, captures=census, collects=False))
    assert (told.word, told.finding.confidence, told.alarm) == ("uncollected_garbage", "high", True)
    assert not [finding.word for finding in told.also]
    assert verdict(readings(series=grown, captures=census, collects=True)).word == "waiting_garbage"
    assert verdict(readings(series=grown, captures=census)).word == "waiting_garbage"
    called = {**grown, "gc_collections_2": line(lambda second: second // 30)}
    assert verdict(readings(series=called, captures=census, collects=False)).word == "waiting_garbage"
    unknown = {name: points for name, points in grown.items() if name not in stands}
    assert verdict(readings(series=unknown, captures=census, collects=False)).word == "waiting_garbage"


def test_garbage_that_the_collector_was_told_to_keep_is_an_alarm_and_says_so() -> None:
    grown = series(in_use_bytes=GROWING, python_live_bytes=GROWING)
    saved = {"path": "module gc -> global 'garbage' -> list[900] -> app.Node", "samples": 9, "root": "module"}
    cycle = {"path": "(in a cycle that nothing reaches)", "samples": 3, "root": "cycle"}
    census = {"objects": census_of(saved, cycle)}
    told = verdict(readings(series=grown, captures=census, collects=True, saved=900))
    assert (told.word, told.finding.confidence, told.alarm) == ("uncollected_garbage", "high", True)
    assert "900 objects by now" in told.finding.says
    assert not told.also
    # Without the flag the program itself keeps them there.
    assert verdict(readings(series=grown, captures=census, collects=True)).word == "retained_objects"
    held = {"path": "module app -> global 'KEPT' -> list", "samples": 12, "root": "module"}
    leak = verdict(readings(series=grown, captures={"objects": census_of(held)}, collects=True, saved=900))
    assert leak.word == "retained_objects"


def test_a_capture_of_growth_that_has_slowed_down_since_accuses_nobody_and_is_taken_again() -> None:
    """Streams filled up in the first minute: what a capture named then was told for ten minutes, of what leaked after."""
    bent = line(lambda second: 60 * MIB + 2_000_000 * min(second, 40) + 300_000 * max(0, second - 40))
    held = {"path": "Task 'serves' -> local 'chunks' -> list", "samples": 12, "root": "task"}
    census = census_of(held) | {"in_use_delta": 40_000_000, "elapsed": 20.0, "bytes_delta": 38_000_000, "time": 45.0}
    census["top"] = [{"type": "app.Node", "bytes_delta": 39_000_000}]
    told = verdict(readings(series=series(in_use_bytes=bent, python_live_bytes=bent), captures={"objects": census}))
    (found,) = (each for each in (told.finding, *told.also) if each.word == "retained_objects")
    assert (found.confidence, found.culprit, found.outdated) == ("low", None, True)
    assert "what grows now may be something else" in found.says
    straight = line(lambda second: 60 * MIB + 2_000_000 * second)
    told = verdict(
        readings(series=series(in_use_bytes=straight, python_live_bytes=straight), captures={"objects": census})
    )
    assert (told.finding.confidence, told.finding.culprit, told.finding.outdated) == ("high", "app.Node", False)


def test_what_streams_were_found_to_hold_explains_no_growth_that_is_found_elsewhere() -> None:
    grown = series(in_use_bytes=GROWING, python_live_bytes=GROWING)
    streams = [{"id": "Task-9", "route": "/chat", "retained_bytes": 60 * MIB}]
    retained = {"total_bytes": 60 * MIB, "streams": streams}
    words = {}
    for root, path in (
        ("module", "module keeping -> global 'seen' -> list"),
        ("task", "Task 'serves' -> local 'chunks'"),
    ):
        census = census_of({"path": path, "samples": 12, "root": root})
        told = verdict(readings(layers={"app": None}, series=grown, captures={"retained": retained, "objects": census}))
        words[root] = [each.word for each in (told.finding, *told.also)]
    assert words == {"module": ["retained_objects", "buffering"], "task": ["buffering", "retained_objects"]}


def test_a_holder_that_is_not_known_is_not_told_with_high_confidence() -> None:
    grown = series(in_use_bytes=GROWING, python_live_bytes=GROWING)
    lost = {"path": "(held by a reference that no object has)", "samples": 12, "root": "lost"}
    told = verdict(readings(series=grown, captures={"objects": census_of(lost)}))
    assert (told.finding.confidence, told.finding.culprit, told.finding.path) == ("medium", "app.Node", None)
    ways = [{"path": f"module app -> global 'K{n}'", "samples": 3, "root": "module"} for n in range(4)]
    told = verdict(readings(series=grown, captures={"objects": census_of(*ways)}))
    assert told.finding.confidence == "medium"  # none of the ways accounts for half of the samples


def test_mappings_of_neither_allocator_are_native() -> None:
    grown = series(rss_bytes=line(lambda second: 100 * MIB + 400_000 * second))
    told = verdict(readings(series=grown, balance=balance(other=60 * MIB)))
    assert (told.word, told.finding.confidence) == ("native_growth", "medium")


def test_tasks_that_grow_without_streams_are_orphans_and_a_capture_names_them() -> None:
    grown = series(tasks=line(lambda second: 10 + second))
    assert (verdict(readings(series=grown)).word, verdict(readings(series=grown)).finding.confidence) == (
        "orphan_tasks",
        "medium",
    )
    top = [
        {"count": 300, "orphan": True, "task": "RequestResponseCycle.run_asgi", "function": "wait"},
        {"count": 20, "orphan": True, "task": "reload", "function": "sleep", "state": "pending"},
    ]
    told = verdict(readings(series=grown, captures={"tasks": {"top": top}}))
    assert (told.finding.confidence, told.finding.culprit) == ("medium", None)  # a fifth of them is not their cause
    top.append({"count": 120, "orphan": True, "task": "heartbeat", "function": "sleep", "state": "pending"})
    told = verdict(readings(series=grown, captures={"tasks": {"top": top}}))
    assert told.finding.confidence == "high"
    assert "120 tasks ran heartbeat, and nothing awaits them" in told.finding.says
    assert told.finding.culprit == "heartbeat"


@pytest.mark.parametrize(
    ("then", "culprit", "confidence"), [(120, "heartbeat", "high"), (38, "heartbeat", "medium"), (15, None, "medium")]
)
def test_a_capture_names_what_had_grown_until_it_was_taken(then: int, culprit: str | None, confidence: str) -> None:
    """The tasks go on growing, by 120 within the window: a capture from its middle is no less true for that."""
    grown = series(tasks=line(lambda second: 10 + second))
    row = {"count": then - 10, "orphan": True, "task": "heartbeat", "function": "sleep", "state": "pending"}
    capture = {"top": [row], "states": {"pending": then, "done": 7}}
    told = verdict(readings(series=grown, captures={"tasks": capture}))
    assert (told.finding.culprit, told.finding.confidence) == (culprit, confidence)


def test_tasks_of_a_group_that_lives_as_long_as_the_app_are_named_where_nothing_can_wake_them() -> None:
    grown = series(tasks=line(lambda second: 10 + second))
    held = {
        "count": 120,
        "orphan": False,
        "leaked": 118,
        "task": "relay_events",
        "waits_in": "get (queues.py:3)",
        "state": "pending",
    }
    told = verdict(readings(series=grown, captures={"tasks": {"top": [held]}}))
    assert (told.word, told.finding.confidence, told.finding.culprit) == ("orphan_tasks", "high", "relay_events")
    assert "118 of them wait for what nothing alive can bring about" in told.finding.says


@pytest.mark.parametrize("kinds", [2, 3, 4])
def test_tasks_that_come_together_are_named_together(kinds: int) -> None:
    """A session's loop and its group's own task, one of each for a request: neither is half of the rise."""
    grown = series(tasks=line(lambda second: 10 + kinds * second))
    names = ["Session._receive_loop", "run_stateless_server", "relay", "beat"][:kinds]
    rows = [
        {"count": 70 - number, "orphan": False, "task": name, "state": "pending"} for number, name in enumerate(names)
    ]
    told = verdict(
        readings(series=grown, captures={"tasks": {"top": [*rows, {"count": 9, "task": "x", "state": "pending"}]}})
    )
    assert (told.word, told.finding.culprit) == ("orphan_tasks", ", ".join(names))
    # One of them is far from as many as the other, and both together from the rise: nobody is named.
    few = [{**rows[0], "count": 30}, {**rows[1], "count": 8}]
    told = verdict(readings(series=grown, captures={"tasks": {"top": few}}))
    assert told.finding.culprit is None


def test_tasks_of_open_websockets_are_load_though_no_stream_is_counted() -> None:
    grown = series(tasks=line(lambda second: 10 + 2 * second), fds=line(lambda second: 30 + second))
    assert verdict(readings(series=grown)).word == "load_only"


def test_threads_that_grow_without_streams_are_named_by_what_they_run() -> None:
    """A thread for each request, 1,457 of them, was called retained objects."""
    grown = series(threads=line(lambda second: 5 + second), in_use_bytes=GROWING, python_live_bytes=GROWING)
    told = verdict(readings(series=grown))
    assert (told.word, told.finding.confidence) == ("thread_growth", "medium")
    groups = [{"count": 110, "runs": "work (app.py:9)", "waits_in": "wait (threading.py:300)"}]
    told = verdict(readings(series=grown, captures={"tasks": {"top": [], "thread_groups": groups}}))
    assert (told.finding.confidence, told.finding.culprit) == ("high", "work (app.py:9)")
    served = series(threads=line(lambda second: 5 + second), open_streams=line(lambda second: 4 + second))
    assert verdict(readings(series=served)).word == "load_only"


def test_tasks_that_come_with_streams_are_load() -> None:
    grown = series(tasks=line(lambda second: 10 + 3 * second), open_streams=line(lambda second: 4 + second))
    assert verdict(readings(series=grown)).word == "load_only"


def test_streams_that_outlive_their_clients_leave_upstreams_open() -> None:
    rows = [row(3, 10, "disconnected", disconnected_seconds=40.0), row(4, 0, "disconnected", disconnected_seconds=0.1)]
    told = verdict(readings(streams=rows))
    assert (told.word, told.finding.confidence, told.finding.streams) == ("unclosed_upstreams", "high", ("3",))


def test_connections_to_others_that_grow_without_streams_are_unclosed() -> None:
    told = verdict(readings(series=series(outgoing_connections=line(lambda second: 4 + second))))
    assert (told.word, told.finding.confidence) == ("unclosed_upstreams", "medium")


def test_free_memory_that_the_allocators_keep() -> None:
    told = verdict(readings(balance=balance(malloc_free=200 * MIB)))
    assert (told.word, told.finding.confidence) == ("allocator_free", "high")


def test_a_tracers_tables() -> None:
    told = verdict(readings(balance=balance(tracers=50 * MIB), series=series(in_use_bytes=GROWING)))
    assert (told.word, told.finding.confidence) == ("tracer_growth", "high")


def test_telemetry_that_a_capture_shows() -> None:
    top = [
        {"function": "on_end", "file": "/x/opentelemetry/sdk/trace/export.py", "line": 1, "bytes": 30 * MIB},
        {"function": "chat", "file": "/x/app.py", "line": 1, "bytes": 2 * MIB},
    ]
    told = verdict(readings(captures={"memray": {"top": top}}, series=series(in_use_bytes=GROWING)))
    assert (told.word, told.finding.confidence) == ("tracer_growth", "high")


@pytest.mark.parametrize("each", [1_000, 40_000, 200_000])
def test_plain_load_gives_no_alarm(each: int) -> None:
    """Streams come and stay, each with what a stream takes."""
    told = verdict(
        readings(
            open_streams=400,
            series=series(
                open_streams=line(lambda second: 3 * second),
                in_use_bytes=line(lambda second: 60 * MIB + 3 * each * second),
                rss_bytes=line(lambda second: 100 * MIB + 3 * each * second),
                tasks=line(lambda second: 10 + 9 * second),
                outgoing_connections=line(lambda second: 4 + 3 * second),
            ),
        )
    )
    assert (told.word, told.alarm) == ("load_only", False)


@pytest.mark.parametrize("each", [60_000, 200_000])
def test_websockets_that_come_and_stay_are_load(each: int) -> None:
    """A chat whose clients connected one by one, 50 KB each: "Objects are retained", as a WebSocket is no stream."""
    come = dict.fromkeys(
        ("tasks", "threads", "outgoing_connections", "client_connections"), line(lambda second: 10 + second)
    )
    told = verdict(
        readings(
            open_streams=0,
            series=series(
                **come,
                open_streams=line(lambda second: 0),
                in_use_bytes=line(lambda second: 60 * MIB + each * second),
                rss_bytes=line(lambda second: 100 * MIB + each * second),
            ),
        )
    )
    assert (told.word, told.alarm) == ("load_only", False)
    assert told.finding.confidence == "medium"
    assert "clients' connections" in told.finding.says
    assert told.finding.load > MIB


@pytest.mark.parametrize("seed", range(10))
def test_load_explains_of_the_whole_what_is_seen_to_grow_and_not_what_noise_may_hide(seed: int) -> None:
    """An interval's upper end is what cannot be excluded; added up over workers, it would explain a leak of the whole."""
    clients, chance = line(lambda second: 10 + 2 * second), random.Random(seed)
    noise = line(lambda second: 60 * MIB + 3_000 * second + 8 * MIB * (chance.random() < 0.4) * chance.random())
    told = verdict(readings(series=series(client_connections=clients, tasks=clients, in_use_bytes=noise)))
    assert told.word == "load_only"
    bounds = [each for each in told.finding.evidence if "slope over" in each.what]
    assert bounds
    slope = max(each.value for each in bounds)
    assert told.finding.load <= max(0.0, slope) * SECONDS * 1.01


def test_connections_that_are_only_kept_for_a_next_request_explain_no_growth() -> None:
    """They have no task. What grows by more than clients take is told beside them, too."""
    clients = line(lambda second: 10 + 2 * second)
    kept = series(client_connections=clients, in_use_bytes=GROWING, python_live_bytes=GROWING)
    assert verdict(readings(series=kept)).word == "retained_objects"
    heavy = line(lambda second: 60 * MIB + 1_000_000 * second)
    served = series(client_connections=clients, tasks=clients, in_use_bytes=heavy, python_live_bytes=heavy)
    assert verdict(readings(series=served)).word == "retained_objects"


def test_a_service_that_does_not_grow_is_told_so() -> None:
    told = verdict(readings())
    assert (told.word, told.alarm, told.also) == ("load_only", False, ())
    assert "does not grow by as much as matters" in told.finding.says


def test_that_all_is_well_is_said_with_low_confidence_where_a_cause_could_not_be_looked_for() -> None:
    unseen = {"tasks": "asyncio keeps them elsewhere", "loop_lag": "asyncio keeps them elsewhere"}
    told = verdict(readings(unknown=unseen))
    assert (told.word, told.finding.confidence) == ("load_only", "low")
    assert "tasks, loop lag: asyncio keeps them elsewhere" in told.finding.says
    held = verdict(readings(unknown=unseen, layers={"app": 48 * MIB}, streams=[row(7, 48 * MIB)]))
    assert (held.word, held.finding.confidence) == ("buffering", "high")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "no agent"),
        ({"state": "silent"}, "does not answer"),
        ({"state": "answering"}, "too few readings"),
        ({"state": "answering", "window": "memray"}, "memray window is open"),
        (
            {"state": "answering", "series": {"rss_bytes": line(lambda second: 100 * MIB + 400_000 * second)}},
            "RSS grows",
        ),
    ],
)
def test_without_readings_it_is_inconclusive_and_says_why(given: Any, says: str) -> None:
    told = verdict(Readings(**given))
    assert (told.word, told.alarm, told.finding.confidence) == ("inconclusive", False, "low")
    assert says in told.finding.says


@pytest.mark.parametrize("state", ["silent", "outside"])
def test_what_was_read_before_an_agent_fell_silent_accuses_nobody_now(state: str) -> None:
    grown = series(in_use_bytes=GROWING, python_live_bytes=GROWING, tasks=line(lambda second: 10 + 9 * second))
    assert verdict(readings(series=grown)).alarm
    since = {"silent": "since 02:13:05 UTC (the process is stopped (state T))", "before": "Tasks grow."}
    told = verdict(readings(series=grown, state=state, open_streams=None, **since))
    assert (told.word, told.alarm, told.also) == ("inconclusive", False, ())
    if state == "silent":
        assert "does not answer since 02:13:05 UTC (the process is stopped" in told.finding.says
        assert told.finding.says.endswith("When it last answered: Tasks grow.")


def test_connections_that_grow_where_nobody_counts_streams_are_told_with_that_reserve() -> None:
    grown = {"rss_bytes": flat(100 * MIB), "outgoing_connections": line(lambda second: 4 + second)}
    told = verdict(readings(series=grown, state="outside", open_streams=None))
    assert (told.word, told.finding.confidence) == ("unclosed_upstreams", "low")
    assert told.finding.says.endswith("how many streams are open is not known.")


COUNTS = st.one_of(st.none(), st.integers(0, 2**40))


@given(
    state=st.sampled_from(["answering", "silent", "outside"]),
    layers=st.dictionaries(st.sampled_from(["app", "transport", "kernel"]), COUNTS),
    open_streams=st.one_of(st.none(), st.integers(0, 10**6)),
    parts=st.one_of(st.none(), st.fixed_dictionaries(dict.fromkeys(PARTS, COUNTS))),
    points=st.dictionaries(
        st.sampled_from(["in_use_bytes", "rss_bytes", "tasks", "open_streams", "outgoing_connections"]),
        st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e12)), max_size=60).map(sorted),
    ),
)
def test_whatever_is_read_it_gives_a_known_verdict_with_its_numbers(
    state: str, layers: Any, open_streams: Any, parts: Any, points: Any
) -> None:
    held = {"rss_bytes": sum(part or 0 for part in parts.values()), "parts": parts} if parts else None
    told = verdict(Readings(state=state, balance=held, layers=layers, open_streams=open_streams, series=points))
    assert told.word in CAUSES
    assert told.finding.evidence or told.word == "inconclusive"
    assert all(one.text for one in told.finding.evidence)
    if not any(layers.values()) and not parts and not points:
        assert told.word == "inconclusive"


def noisy(slope: float, temporary: float, seed: int) -> list[tuple[float, float]]:
    """Steady growth in bytes a second, in small steps, amid large blocks that live for a moment."""
    rng = random.Random(seed)
    return line(lambda second: 80 * MIB + slope * (second // 4 * 4) + temporary * (rng.random() < 0.4) * rng.random())


@pytest.mark.parametrize("seed", range(20))
def test_growth_that_the_noise_may_hide_is_never_told_as_none(seed: int) -> None:
    """220 KiB a second for two minutes amid temporaries of 10 MB: "does not grow ... nothing to fix", high confidence."""
    told = verdict(readings(series=own(in_use_bytes=noisy(220 * 1024, 10e6, seed))))
    assert told.word in ("inconclusive", "native_growth", "memory_growth")
    assert told.word != "inconclusive" or "may grow by up to" in told.finding.says
    # RSS keeps what was there once: a straight line. It grows, and what is in use may be why.
    rss = line(lambda second: 100 * MIB + 220 * 1024 * second)
    told = verdict(
        readings(series=own(in_use_bytes=noisy(220 * 1024, 10e6, seed), rss_bytes=rss), balance=balance(other=0))
    )
    assert (told.alarm, told.word) in ((True, "memory_growth"), (True, "native_growth"), (False, "inconclusive"))
    if not told.alarm:
        assert "RSS grows" in told.finding.says
    assert "objects" in told.to_json()["next"] or "memray" in told.to_json()["next"]


def test_that_it_does_not_grow_is_told_with_its_bound_and_what_would_matter() -> None:
    told = verdict(readings(series=own()))
    assert (told.word, told.finding.confidence) == ("load_only", "high")
    assert re.search(
        r"by at most [\d.]+ .?i?B an hour over \d+ s \(95 % sure\), where .* a tenth of what is resident",
        told.finding.says,
    )
    # A limit that is nearly met makes less growth matter, and the same readings exclude it no longer.
    near = {"cgroup_limit_bytes": flat(200 * MIB), "cgroup_working_bytes": line(lambda second: 199.5 * MIB)}
    slowly = {"in_use_bytes": noisy(0.0, 250_000.0, 1)}
    assert verdict(readings(series=own(**slowly))).word == "load_only"
    told = verdict(readings(series=own(**slowly, **near)))
    assert (told.word, told.alarm) == ("inconclusive", False)
    assert "the least that is worth a look" in told.finding.says


def test_an_inconclusive_verdict_says_how_much_longer_it_takes_or_what_decides() -> None:
    soon = verdict(readings(series=own(in_use_bytes=noisy(0.0, 2e6, 3))))
    assert (soon.word, re.search(r"About (\d+) min more of such readings decide", soon.finding.says) is not None) == (
        "inconclusive",
        True,
    )
    rng, level = random.Random(3), [60e6]
    wandering = line(lambda second: level.append(level[-1] + rng.gauss(0, 1e6)) or level[-1])
    never = verdict(readings(series=own(in_use_bytes=wandering)))
    assert (never.word, never.to_json()["next"]) == (
        "inconclusive",
        "diagnostics capture URL --kind objects --seconds 30",
    )


@pytest.mark.parametrize(
    ("python", "named"), [("3.14.2", True), ("3.14.5", False), ("3.14.0rc1", False), ("3.13.0", False)]
)
def test_a_release_whose_collector_keeps_memory_is_named(python: str, named: bool) -> None:
    grown = series(in_use_bytes=GROWING, python_live_bytes=GROWING)
    assert ("3.14.5 does not" in verdict(readings(series=grown, python=python)).finding.says) == named
    assert "3.14.5" not in verdict(readings(series=own(), python=python)).finding.says


def test_a_service_that_loads_in_one_jump_and_is_then_flat_does_not_grow() -> None:
    jump = line(lambda second: 100 * MIB + (80 * MIB if second > 40 else 0) + 1000 * (second % 3))
    for lines in (own(in_use_bytes=jump, rss_bytes=jump, private_bytes=jump), own(in_use_bytes=jump)):
        assert not verdict(readings(series=lines)).alarm


MAPPED = line(lambda second: 100 * MIB + 400_000 * second)


@pytest.mark.parametrize(
    ("in_shared", "word", "alarm"),
    [(line(lambda second: 400_000 * second), "shared_memory_growth", True), (flat(300 * MIB), "mapped_files", False)],
    ids=["shared memory", "files beside shared memory that does not grow"],
)
def test_rss_that_grows_in_mapped_pages_is_told_with_what_is_mapped(in_shared: Any, word: str, alarm: bool) -> None:
    """It was "RSS grows, and the readings do not show why", beside a balance in which mapped files were nearly all of it."""
    mapped = {"what": "/dev/shm", "bytes": 140 * MIB, "mappings": 60}
    ordinary = {"rss_bytes": 200 * MIB, "parts": {"mapped_files": 150 * MIB, "other": 0}}
    grown = own(rss_bytes=MAPPED, private_bytes=MAPPED, mapped_bytes=MAPPED, shared_bytes=in_shared)
    told = verdict(readings(series=grown, balance={**ordinary, "mapped": [mapped]}))
    assert (told.word, told.alarm, told.finding.culprit) == (word, alarm, "/dev/shm")
    assert "Of what is mapped, /dev/shm has 140.00 MiB, in 60 mappings." in told.finding.says
    # What may have been as large before is not named.
    before = {**ordinary, "mapped": [{**mapped, "bytes": 101 * MIB}]}
    assert verdict(readings(series=grown, balance=before)).finding.culprit is None
    # What is mapped is as it was: then it is something else that grows.
    other = {**grown, "mapped_bytes": flat(70 * MIB), "shared_bytes": flat(60 * MIB)}
    assert verdict(readings(series=other, balance=ordinary)).word == "inconclusive"


def test_garbage_without_a_stream_is_no_load() -> None:
    """Beside the garbage it said that memory grew with what open streams buffer, and there were none."""
    census = {
        "bytes_delta": 4 * MIB,
        "seconds": 10.0,
        "in_use_delta": 4_000_000,
        "top": [{"type": "list", "bytes_delta": 4 * MIB}],
        "paths": {"list": [{"path": "in cycles", "samples": 12, "root": "cycle"}]},
    }
    told = verdict(readings(series=series(in_use_bytes=GROWING), captures={"objects": census}))
    assert told.word == "waiting_garbage"
    assert not told.also


def test_every_verdict_has_its_section_in_the_documentation() -> None:
    page = (Path(__file__).parents[4] / "docs" / "verdict.md").read_text(encoding="utf-8")
    sections = {text.partition("\n")[0].strip() for text in page.split("\n## ")[1:]}
    assert {word.replace("_", "-") for word in CAUSES} <= sections
    named = [f"[{word.replace('_', '-')}](#{word.replace('_', '-')})" for word in CAUSES]
    rows = [f"| {name} | {cause.needs} | {cause.certain} |" for name, cause in zip(named, CAUSES.values(), strict=True)]
    table = "\n".join(rows)
    assert table in page, f"the table of causes in docs/verdict.md must be:\n{table}"


def own(**lines: list[tuple[float, float]]) -> dict[str, list[tuple[float, float]]]:
    """As `series`, of a service whose private memory and children are read as well."""
    quiet = {"private_bytes": flat(50 * MIB), "children": flat(0), "children_rss_bytes": flat(0)}
    return series(**{**quiet, **lines})


@pytest.mark.parametrize("missing", ["tasks", "private_bytes", "children_rss_bytes"])
def test_what_was_not_read_is_named_and_takes_the_certainty(missing: str) -> None:
    everything = own()
    assert verdict(readings(series=everything)).finding.confidence == "high"
    del everything[missing]
    told = verdict(readings(series=everything, unread={missing: "for a reason"}))
    assert (told.word, told.finding.confidence) == ("load_only", "medium")
    assert "Not known: " in told.finding.says
    assert "(for a reason)" in told.finding.says


@pytest.mark.parametrize("grows", ["rss_bytes", "private_bytes"])
def test_memory_that_grows_unexplained_is_not_load(grows: str) -> None:
    """RSS that rises while in-use memory does not was called load only, with high confidence."""
    rising = {grows: line(lambda second: 100 * MIB + 400_000 * second)}
    if grows == "private_bytes":
        rising["rss_bytes"] = rising[grows]
    told = verdict(readings(series=own(**rising), balance=balance(other=0)))
    assert told.word == "inconclusive"
    assert "grows, and the readings do not show why" in told.finding.says


COPIED = line(lambda second: 20 * MIB + min(60 * MIB, 1_500_000 * second))


def test_private_memory_that_rises_while_rss_stays_was_copied() -> None:
    whole = {"whole_pss_bytes": line(lambda second: 200 * MIB + 4 * (COPIED[second][1] - 20 * MIB))}
    told = verdict(readings(series=own(private_bytes=COPIED, **whole)))
    assert (told.word, told.finding.confidence, told.alarm) == ("copy_on_write", "high", True)
    assert told.finding.evidence[0].value == pytest.approx(60 * MIB, rel=0.1)
    unseen = verdict(readings(series=own(private_bytes=COPIED)))
    assert (unseen.word, unseen.finding.confidence) == ("copy_on_write", "medium")


def test_pages_whose_other_owners_have_ended_were_not_copied() -> None:
    told = verdict(readings(series=own(private_bytes=COPIED, whole_pss_bytes=flat(200 * MIB))))
    assert told.word != "copy_on_write"
    grown = line(lambda second: 100 * MIB + (COPIED[second][1] - 20 * MIB))
    told = verdict(readings(series=own(private_bytes=COPIED, rss_bytes=grown)))  # its own memory, and no copies
    assert told.word != "copy_on_write"


@pytest.mark.parametrize("every", [12, 30])
def test_memory_that_is_given_back_between_two_readings_was_not_copied(every: int) -> None:
    """A service loaded its tables and gave 75 MiB back: until private memory was read again, that much had been "copied"."""
    rss = line(lambda second: (40 if second < 5 else 160 if second < 62 else 85) * MIB)
    private = line(lambda second: rss[second // every * every][1] - 12 * MIB)
    for until in range(58, 58 + every, 2):
        seen = {"rss_bytes": rss[:until], "private_bytes": private[:until], "whole_pss_bytes": private[:until]}
        told = verdict(readings(series=own(**seen)))
        assert "copy_on_write" not in {told.word, *(finding.word for finding in told.also)}, until


def test_children_that_grow_are_told_by_what_can_be_read_of_them() -> None:
    grown = line(lambda second: 50 * MIB + 400_000 * second)
    told = verdict(readings(series=own(children_pss_bytes=grown, children_rss_bytes=grown)))
    assert (told.word, told.finding.confidence) == ("child_growth", "high")
    told = verdict(readings(series=own(children_rss_bytes=grown)))
    assert (told.word, told.finding.confidence) == ("child_growth", "medium")
    # RSS that rises while PSS does not: a child that touches what it shares.
    shared = verdict(readings(series=own(children_pss_bytes=flat(50 * MIB), children_rss_bytes=grown)))
    assert shared.word == "load_only"


def life(number: int, per_second: float) -> Life:
    """A minute of a worker, with the first quarter taken off as warm-up."""
    at = number * 65.0
    grown = [(at + second, 60 * MIB + per_second * second) for second in range(15, 60)]
    flat_ = [(at + second, 4.0) for second in range(15, 60)]
    return Life(60.0, {"in_use_bytes": grown, "python_live_bytes": grown, "open_streams": flat_, "tasks": flat_}, 600.0)


def test_a_worker_that_is_recycled_is_judged_over_its_lives() -> None:
    begun = {name: points[:5] for name, points in own().items()}
    alone = verdict(readings(series=begun, age=5.0))
    assert alone.word == "inconclusive"
    leaking = [life(number, 400_000) for number in range(4)]
    told = verdict(readings(series=begun, age=5.0, lives=leaking))
    assert told.word == "retained_objects"
    (recycled,) = (finding for finding in told.also if finding.word == "recycled_growth")
    assert recycled.confidence == "high"
    assert recycled.evidence[0].value == pytest.approx(24_000_000, rel=0.1)
    assert "until it is replaced after 60 s and 600 finished streams" in recycled.says
    sound = verdict(readings(series=begun, age=5.0, lives=[life(number, 0) for number in range(4)]))
    assert not sound.alarm
    # It outlives its predecessors: what they did says nothing of it.
    grown_up = verdict(readings(series=own(), age=130.0, lives=leaking))
    assert grown_up.word == "load_only"


CALM = Told("load_only", "high")


def test_the_whole_grows_where_no_worker_does() -> None:
    known: dict[str, Any] = {"since": 0.0, "processes": 5, "rss": 500 * MIB, "unknown": {}}
    grown = {"pss_bytes": line(lambda second: 200 * MIB + 400_000 * second), "processes": flat(5)}
    told = verdict_on_whole(grown, workers={"0": CALM, "1": CALM}, **known)
    assert (told.word, told.finding.confidence, told.alarm) == ("whole_growth", "medium", True)
    assert "no single worker's verdict explains it" in told.finding.says
    told = verdict_on_whole(grown, workers={"0": CALM, "1": Told("child_growth", "medium")}, **known)
    assert (told.word, told.finding.says.endswith("the verdict on worker 1 tells more.")) == ("child_growth", True)
    # Streams or WebSockets that came to all workers and stay: each worker's verdict explains its own part.
    loaded = {name: Told("load_only", "medium", 20 * MIB) for name in ("0", "1")}
    told = verdict_on_whole(grown, workers=loaded, **known)
    assert (told.word, told.finding.confidence, told.alarm) == ("load_only", "medium", False)
    assert "worker 0, 1" in told.finding.says
    little = {"0": Told("load_only", "medium", 2 * MIB), "1": CALM}
    assert verdict_on_whole(grown, workers=little, **known).word == "whole_growth"
    unknown = {"0": CALM, "1": Told("waiting_garbage", "medium")}
    assert verdict_on_whole(grown, workers=unknown, **known).word == "whole_growth"  # another process may be what grows
    tmpfs = line(lambda second: 300 * MIB + 400_000 * second)
    beside = {"pss_bytes": flat(200 * MIB), "cgroup_working_bytes": tmpfs, "cgroup_tmpfs_bytes": tmpfs}
    assert (
        verdict_on_whole(beside, workers={"0": CALM, "1": CALM}, **known).word == "load_only"
    )  # no limit: others' memory is in it as well
    beside["cgroup_limit_bytes"] = flat(900 * MIB)
    told = verdict_on_whole(beside, workers={"0": CALM, "1": CALM}, **known)
    assert (told.word, told.finding.confidence, told.alarm) == ("cgroup_growth", "high", True)
    assert told.finding.culprit == "files in a tmpfs and shared memory"
    calm = verdict_on_whole({"pss_bytes": flat(200 * MIB)}, workers={"0": CALM, "1": CALM}, **known)
    assert (calm.word, calm.finding.confidence) == ("load_only", "high")
    reserved = verdict_on_whole(
        {"rss_bytes": flat(500 * MIB)},
        workers={"0": CALM, "1": CALM},
        **{**known, "unknown": {"pss_bytes": "of process 7"}},
    )
    assert (reserved.word, reserved.finding.confidence) == ("load_only", "low")
    assert "PSS is not known of process 7" in reserved.finding.says
    assert verdict_on_whole({}, workers={"0": CALM, "1": CALM}, **known).word == "inconclusive"


def test_of_a_service_of_one_process_the_sum_accuses_nobody_whom_its_own_verdict_does_not() -> None:
    """Beside "garbage waits for the collector", which is no alarm, stood an alarm: no single worker's verdict explains it."""
    known: dict[str, Any] = {"since": 0.0, "processes": 1, "rss": 200 * MIB, "unknown": {}}
    grown = {"pss_bytes": line(lambda second: 200 * MIB + 400_000 * second), "processes": flat(1)}
    told = verdict_on_whole(grown, workers={"0": Told("waiting_garbage", "medium")}, **known)
    assert (told.word, told.finding.confidence, told.alarm) == ("waiting_garbage", "medium", False)
    assert told.finding.says.endswith("which is one process; the verdict on worker 0 tells why.")
    told = verdict_on_whole(grown, workers={"0": CALM}, **known)
    assert (told.word, told.finding.confidence, told.alarm) == ("inconclusive", "low", False)
    told = verdict_on_whole(grown, workers={"0": Told("load_only", "medium", 40 * MIB)}, **known)
    assert (told.word, told.finding.confidence, told.alarm) == ("load_only", "medium", False)
    told = verdict_on_whole(grown, workers={"0": Told("retained_objects", "high")}, **known)
    assert (told.word, told.alarm) == ("retained_objects", True)


def test_the_sum_does_not_take_back_what_a_worker_s_own_verdict_has_found() -> None:
    """Beside "objects are retained", 25 MiB of them, stood: all processes together are not seen to grow, but may."""
    known: dict[str, Any] = {"since": 0.0, "rss": 200 * MIB, "unknown": {}}
    found = {"0": Told("retained_objects", "high")}
    calm, noisy = {"pss_bytes": flat(200 * MIB)}, {"pss_bytes": line(lambda second: (150 + second * 37 % 101) * MIB)}
    for series in ({}, noisy, calm):
        told = verdict_on_whole(series, workers=found, processes=1, **known)
        assert (told.word, told.finding.confidence) == ("retained_objects", "high")
        assert told.finding.says.startswith("The verdict on worker 0 tells more. ")
    others = {**found, "1": CALM}
    assert verdict_on_whole(noisy, workers=others, processes=2, **known).word == "retained_objects"
    assert verdict_on_whole(calm, workers=others, processes=2, **known).word == "load_only"


def test_a_small_part_of_what_became_private_is_not_called_copied() -> None:
    """Of 227 MiB that a leak gained, 8 MiB that RSS had not were told as copies, with high confidence."""
    private = line(lambda second: 40 * MIB + 2_000_000 * second)
    rss = line(lambda second: 70 * MIB + 1_930_000 * second)
    told = verdict(readings(series=own(private_bytes=private, rss_bytes=rss, whole_pss_bytes=private)))
    assert "copy_on_write" not in {told.word, *(finding.word for finding in told.also)}
