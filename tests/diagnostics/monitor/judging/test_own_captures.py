"""An alarm without a culprit gets one from readings that the monitor takes by itself, as many in an hour as it may."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from diagnostics.analysis.verdict.finding import Finding
from diagnostics.analysis.verdict.verdict import Verdict
from diagnostics.errors import TooCostlyError
from diagnostics.monitor.judging.own_captures import OwnCaptures, wanted

APP = """
import threading
from fastapi import FastAPI

app = FastAPI()
ends = threading.Event()

def audit():
    ends.wait()

@app.get("/")
def serve():
    for _ in range(3):
        threading.Thread(target=audit, daemon=True).start()
    return {}
"""
FAST = {
    "DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.05",
    "DIAGNOSTICS_RECORD_SECONDS": "60",
    "DIAGNOSTICS_LOOKS_PER_HOUR": "2",
}


def test_the_first_status_names_the_culprit_without_a_command(observed: Any, http: Any, eventually: Any) -> None:
    """A thread for each request: the verdict's culprit is there though nobody asked for a capture."""
    service = observed(APP, env=FAST)

    def look() -> Any:
        http(f"{service.url}/")
        workers = http(f"{service.monitor}/debug/memory/verdict").json()["workers"]
        found = workers[0] if workers else {}
        return found if found.get("verdict") == "thread_growth" and found["culprit"] else None

    told = eventually(look, patience=90)
    assert told["culprit"].startswith("audit (service.py:")
    assert told["confidence"] == "high"
    captures = http(f"{service.monitor}/debug/memory").json()["captures"]
    assert {capture["kind"] for capture in captures} <= {"tasks", "objects"}
    page = http(f"{service.monitor}/metrics").body.decode()
    assert 'memory_verdict{cause="thread_growth",worker="0"} 1.0' in page
    assert 'memory_verdict{cause="load_only",worker="0"} 0.0' in page
    # What was read while captures were taken is no evidence: there may be too little of it for a moment.
    eventually(
        lambda: (
            'memory_growth_bytes_per_hour{bound="high",worker="0"}' in http(f"{service.monitor}/metrics").body.decode()
        )
    )


GROWING = """
from fastapi import FastAPI

app = FastAPI()
kept = []

@app.get("/")
def serve():
    kept.append(["row"] * 20_000)
    return {}
"""


def test_a_look_of_its_own_makes_way_for_what_somebody_asks_for(observed: Any, http: Any, eventually: Any) -> None:
    service = observed(GROWING, env=FAST)
    captures = f"{service.monitor}/debug/memory/captures"

    def own_look() -> Any:
        http(f"{service.url}/")
        return next((each for each in http(captures).json()["captures"] if each["state"] == "running"), None)

    own = eventually(own_look, patience=90)
    assert own["kind"] == "objects"
    begun = http(captures, "POST", {"kind": "tasks", "fork": False, "force": True})
    assert begun.status == 202, begun.body
    one = f"{service.monitor}{begun.headers['Location']}"
    eventually(lambda: http(one).json()["state"] == "done")
    assert http(f"{captures}/{own['id']}").status == 404  # cancelled, as if it had not been taken
    assert http(captures, "POST", {"kind": "objects", "seconds": 30, "force": True}).status == 202
    assert http(captures, "POST", {"kind": "tasks", "fork": False}).status == 409  # two that were asked for do not


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (Finding("orphan_tasks", "medium", "", ()), "tasks"),
        (Finding("retained_objects", "medium", "", ()), "objects"),
        (Finding("retained_objects", "high", "", (), culprit="dict"), None),
        # Where it is, and by now also who holds it.
        (Finding("shared_memory_growth", "high", "", (), culprit="/dev/shm"), "objects"),
        (Finding("shared_memory_growth", "high", "", (), culprit="/dev/shm", path="global 'maps'"), None),
        (Finding("buffering", "high", "", ()), None),
        (Finding("load_only", "high", "", ()), None),
        (Finding("inconclusive", "low", "too few readings", ()), None),
        (Finding("inconclusive", "low", "", (), next="diagnostics capture URL --kind objects --seconds 30"), "objects"),
    ],
    ids=str,
)
def test_only_what_names_a_culprit_is_taken(found: Finding, kind: str | None) -> None:
    assert [asked["kind"] for asked in wanted(Verdict(found))] == ([kind] if kind else [])


def test_a_weak_sign_does_not_keep_others_from_being_looked_into() -> None:
    weak, young = Finding("buffering", "low", "", ()), Finding("retained_objects", "low", "", ())
    sure, other = Finding("orphan_tasks", "medium", "", ()), Finding("memory_growth", "medium", "", ())
    assert [asked["kind"] for asked in wanted(Verdict(weak, (young, other)))] == ["retained", "objects"]
    assert [asked["kind"] for asked in wanted(Verdict(weak, (sure, other)))] == ["retained", "tasks"]
    assert [asked["kind"] for asked in wanted(Verdict(sure, (weak, other)))] == ["tasks"]


class Process:
    pid = 7


class Snapshot:
    worker, process, state = "0", Process(), "answering"


class Targets:
    @property
    def known(self) -> list[Any]:
        return self.workers()

    def workers(self) -> list[Any]:
        return [Process()]

    async def snapshots(self) -> list[Any]:
        return [Snapshot()]


class Judge:
    def __init__(self, found: Finding) -> None:
        self._found = found

    async def verdict(self, _snapshot: Any) -> Verdict:
        return Verdict(self._found)


class Captures:
    """The controller's side: nothing is ever kept, so that each look asks again."""

    def __init__(self, error: Exception | None = None, latest: dict[str, Any] | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self._error, self._latest = error, latest

    def latest(self, *_arguments: Any) -> dict[str, Any] | None:
        return self._latest

    async def begin(self, request: dict[str, Any], *, yields: bool, by: str) -> dict[str, Any]:
        assert by == "the verdict"
        self.asked.append(request)
        if self._error is not None:
            raise self._error
        return {"id": "x"}

    async def ended(self, _capture_id: str) -> dict[str, Any]:
        return {"state": "done"}


class Notes:
    """The audit log's side."""

    def note(self, *_arguments: Any, **_facts: Any) -> None:
        return None


TASKS = Finding("orphan_tasks", "medium", "", ())


def looked(captures: Captures, an_hour: int, times: int, found: Finding = TASKS) -> list[dict[str, Any]]:
    async def main() -> None:
        looks = OwnCaptures(Targets(), Judge(found), captures, Notes(), an_hour)  # type: ignore[arg-type]
        for _ in range(times):
            await looks.look()

    asyncio.run(main())
    return captures.asked


def test_at_most_so_many_are_taken_in_an_hour_and_none_is_forced() -> None:
    assert looked(Captures(), 2, 5) == [{"kind": "tasks", "worker": "0"}] * 2
    refused = Captures(TooCostlyError("it costs too much"))
    assert len(looked(refused, 2, 5)) == 1  # and is asked for again when some time has passed


def test_what_is_still_believed_is_taken_again_only_where_memory_has_changed_its_pace_since() -> None:
    found = Finding("retained_objects", "low", "", ())
    assert looked(Captures(latest={}), 6, 3, found) == []
    outdated = Finding("retained_objects", "low", "", (), outdated=True)
    assert [asked["kind"] for asked in looked(Captures(latest={}), 2, 5, outdated)] == ["objects"] * 2
