"""What grows and is kept alive by open streams alone is buffered for them; what a module keeps as well is retained."""

from __future__ import annotations

from typing import Any

import pytest

from diagnostics.analysis.verdict.readings import MIB, Readings
from diagnostics.analysis.verdict.verdict import Verdict, verdict

SECONDS, PACE = 150, 400_000
SERVED = (
    "Task 'Task-*' -> run_asgi (impl.py:421) -> chunks_of (proxy.py:{line}) -> local 'served_chunks' -> list[{length}]"
)
UNREAD = [{"id": n, "route": "/chat", "transport_bytes": 70_000, "kernel_bytes": 130_000} for n in range(5)]


def line(start: float, per_second: float = 0.0) -> list[tuple[float, float]]:
    return [(float(second), start + per_second * second) for second in range(SECONDS)]


def told(
    ways: dict[str, Any],
    *,
    of_each: float = 2e6,
    seconds: int = SECONDS,
    in_use: list[tuple[float, float]] | None = None,
    taken: float | None = None,
    **more: Any,
) -> Verdict:
    """A service whose memory gained 4 MB between two looks at its objects, `of_each` of it in each of two types."""
    rows = [{"type": kind, "bytes_delta": int(of_each), "function": kind} for kind in ("dict", "lib.Chunk")]
    census = {
        "time": taken,
        "seconds": 10.0,
        "bytes_delta": int(2 * of_each),
        "in_use_delta": 10 * PACE,
        "top": rows,
        "hidden": [],
        "paths": ways,
    }
    series = {
        "rss_bytes": line(100 * MIB, PACE),
        "in_use_bytes": in_use or line(60 * MIB, PACE),
        "python_live_bytes": line(30 * MIB, PACE),
        "open_streams": line(9),
        "tasks": line(10),
    }
    given: dict[str, Any] = {
        "open_streams": 9,
        "layers": {"app": None},
        "streams": UNREAD,
        "captures": {"objects": census},
    }
    series = {name: points[:seconds] for name, points in series.items()}
    return verdict(
        Readings(
            state="answering",
            balance={"rss_bytes": 150 * MIB, "parts": {}},
            series=series,
            age=float(seconds),
            **{**given, **more},
        )
    )


def way(path: str, root: str, samples: int = 12, streams: Any = None) -> dict[str, Any]:
    return {"path": path, "samples": samples, "root": root} | ({} if streams is None else {"streams": streams})


def served(streams: Any = ("a", "b", "c")) -> dict[str, Any]:
    """Ways of both types through streams, which have come to different lines of their functions."""
    places = {"dict": (40, 60, "dict"), "lib.Chunk": (44, 71, "lib.Chunk")}
    return {
        kind: [way(f"{SERVED.format(line=at, length=length)} -> {end}", "stream", streams=list(streams))]
        for kind, (at, length, end) in places.items()
    }


def test_growth_that_open_streams_alone_keep_alive_is_buffering_with_its_container_and_function() -> None:
    """A proxy kept every chunk of a stream in a list until it ended: "retained objects" sent one to look for a leak."""
    found = told(served())
    assert (found.word, found.finding.confidence, found.finding.layer) == ("buffering", "high", "app")
    assert "retained_objects" not in {each.word for each in found.also}
    assert found.finding.culprit == "local 'served_chunks' -> list[60]"
    assert "of chunks_of (proxy.py:" in found.finding.says
    assert "3 open streams, on average 1.27 MiB each" in found.finding.says  # 4 MB
    assert "It is freed as they end. The clients of 5 streams do not read." in found.finding.says
    assert found.finding.streams == ("a", "b", "c")
    assert found.to_json()["fix"].startswith("Bound what one stream may hold")


def test_where_each_sample_is_of_another_stream_all_open_ones_are_counted() -> None:
    found = told(served([f"Task-{number}" for number in range(20)]), open_streams=400)
    assert "400 open streams, on average 9.77 KiB each" in found.finding.says


@pytest.mark.parametrize("root", ["module", "task", "thread", "frame"])
def test_what_anything_else_keeps_alive_is_retained_though_streams_have_some_of_it(root: str) -> None:
    ways = served()
    for kind, those in ways.items():
        ways[kind] = [way("module app -> global 'seen' -> list[9]", root, 8), {**those[0], "samples": 4}]
    found = told(ways)
    assert found.word == "retained_objects"
    assert "can be reached through nothing else" not in found.finding.says


def test_what_streams_have_of_less_than_half_of_the_growth_is_not_told_as_its_cause() -> None:
    found = told(served(), of_each=9e5)
    assert found.word == "retained_objects" or found.finding.confidence == "low"
    assert "can be reached through nothing else" not in found.finding.says


def test_in_a_young_process_buffers_may_be_filling_to_their_bound() -> None:
    found = told(served(), seconds=100)
    assert (found.word, found.finding.confidence) == ("buffering", "low")
    assert "buffers that fill to their bound look like this" in found.finding.says


def test_growth_that_has_slowed_down_since_the_capture_accuses_no_container() -> None:
    still = [(at, min(value, 60 * MIB + 100 * PACE)) for at, value in line(60 * MIB, PACE)]
    found = told(served(), in_use=still, taken=100.0).finding
    assert (found.word, found.confidence, found.culprit, found.outdated) == ("buffering", "low", None, True)
    assert "grows at less than half of that pace" in found.says


def test_the_container_that_has_most_of_what_streams_were_found_to_hold_is_named() -> None:
    """62 MiB kept alive by five streams, it said, and not in what: the capture had it in its rows."""
    where = "Task 'Task-*' -> chunks_of (proxy.py:{}) -> local 'served_chunks' -> list[{}]"
    rows = [
        {
            "id": f"Task-{number}",
            "route": "/chat",
            "retained_bytes": 12 * MIB - number,
            "containers": [
                {"path": where.format(40 + number, 1200 - number), "type": "list", "bytes": 9 * MIB, "length": 1}
            ],
        }
        for number in range(5)
    ]
    captured = {"total_bytes": 60 * MIB, "streams": rows}
    found = told(served(), captures={"retained": captured}).finding
    assert (found.word, found.confidence, found.culprit) == ("buffering", "high", "local 'served_chunks' -> list[1200]")
    assert "45.00 MiB of it in local 'served_chunks' -> list[1200]" in found.says
    elsewhere = [{**row, "containers": [{**row["containers"][0], "bytes": 2 * MIB}]} for row in rows]
    assert told(served(), captures={"retained": captured | {"streams": elsewhere}}).finding.culprit is None
