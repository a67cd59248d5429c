"""Tasks and loops, seen from another thread on each way that a loop is run; and where they cannot be seen, that it is said."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from diagnostics.agent.loops.asyncio_tasks import alive_tasks, task_count, why_unseen
from diagnostics.agent.loops.search import LoopSearch
from diagnostics.agent.state import State

# A release of asyncio that keeps its tasks where no way that the agent knows leads to them.
ELSEWHERE = """
import asyncio, weakref
asyncio.tasks._all_tasks = weakref.WeakSet()
asyncio.tasks._scheduled_tasks = weakref.WeakSet()
asyncio.tasks.all_tasks = asyncio.all_tasks = lambda loop=None: set()
"""


def told_by(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


class Running:
    """What a test of a loop in another thread needs; `main` waits until `leave` is set."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.left = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def main(self) -> None:
        self.loop = asyncio.get_running_loop()
        leave = asyncio.Event()
        self.leave = lambda: self.loop.call_soon_threadsafe(leave.set)  # type: ignore[union-attr]
        self.started.set()
        await leave.wait()

    def beside(self, run: Callable[[], object], check: Callable[[], None]) -> None:
        """Call `run` in a thread, and `check` in this one while the loop runs there."""
        thread = threading.Thread(target=run)
        thread.start()
        try:
            assert self.started.wait(60)
            check()
        finally:
            self.leave()
            thread.join(60)
        assert not thread.is_alive()


class Owner:
    """Keeps its loop as many servers do, in an attribute."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def run(self, main: Any) -> None:
        self.loop.run_until_complete(main)
        self.loop.close()


def in_a_runner(main: Any) -> None:
    with asyncio.Runner() as runner:
        runner.run(main)


def in_a_variable(main: Any) -> None:
    loop = uvloop.new_event_loop()
    loop.run_until_complete(main)
    loop.close()


WAYS: dict[str, Callable[[Any], object]] = {
    "asyncio.run": asyncio.run,
    "asyncio.Runner": in_a_runner,
    "uvloop.run": uvloop.run,
    "uvloop, a variable": in_a_variable,
    "uvloop, an attribute": lambda main: Owner(uvloop.new_event_loop()).run(main),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_loop_is_found_from_another_thread_with_its_tasks(way: str) -> None:
    running = Running()

    def check() -> None:
        assert any(loop is running.loop for loop in LoopSearch().search())
        assert any(task.get_loop() is running.loop for task in alive_tasks())
        assert (task_count() or 0) >= 1
        assert why_unseen() is None

    running.beside(lambda: WAYS[way](running.main()), check)


def test_a_loop_that_is_gone_is_forgotten() -> None:
    running, search = Running(), LoopSearch()
    running.beside(lambda: asyncio.run(running.main()), lambda: None if search.search() else pytest.fail("not found"))
    assert all(loop is not running.loop for loop in search.known())


def test_a_task_that_is_started_eagerly_is_seen_while_it_has_not_yet_waited() -> None:
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("eager tasks came with Python 3.12")
    started, go_on = threading.Event(), threading.Event()

    async def eager() -> None:
        started.set()
        go_on.wait(60)
        await asyncio.sleep(0)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await asyncio.create_task(eager())

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert started.wait(60)
        # By its coroutine: before Python 3.14 such a task gets its name after its first step.
        assert "eager" in {getattr(task.get_coro(), "__name__", "") for task in alive_tasks()}
    finally:
        go_on.set()
        thread.join(60)


def test_asyncio_without_a_task_has_none_and_that_is_known() -> None:
    program = "from diagnostics.agent.loops.running import task_count\nprint(task_count())\nimport asyncio\nprint(task_count())"
    assert told_by(program) == ["0", "0"]


def test_the_trial_leaves_nothing_behind() -> None:
    program = """
import asyncio, gc
from diagnostics.agent.loops import asyncio_tasks
from diagnostics.agent.loops.search import LoopSearch
search = LoopSearch()
gc.collect()
gc.disable()
assert asyncio_tasks.task_count() == 0
assert search.search() == []
print(gc.collect(), asyncio_tasks.alive_tasks())
"""
    assert told_by(program) == ["0 []"]


def test_tasks_that_no_way_shows_are_unknown_and_not_none() -> None:
    program = f"""{ELSEWHERE}
from diagnostics.agent.loops.asyncio_tasks import task_count, task_states, why_unseen
print(task_count(), task_states())
print(why_unseen())
"""
    counted, why = told_by(program)
    assert counted == "None None"
    assert why.endswith("shows its tasks in no way that this agent knows")


def test_a_loop_in_c_that_no_thread_names_is_unknown_and_not_none() -> None:
    program = """
import asyncio, threading, uvloop
from diagnostics.agent.loops.search import LoopSearch

started = threading.Event()
async def main():
    started.set()
    await asyncio.sleep(600)
threading.Thread(target=lambda: uvloop.new_event_loop().run_until_complete(main()), daemon=True).start()
assert started.wait(60)
search = LoopSearch()
print(search.search(), search.blind_to())
"""
    assert told_by(program) == ["[] uvloop"]


def test_on_a_free_threaded_build_tasks_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    from diagnostics.agent.loops import asyncio_tasks

    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    monkeypatch.setattr(asyncio_tasks, "_way", None)
    monkeypatch.setattr(asyncio_tasks, "_none_works", "")
    assert task_count() is None
    assert "free-threaded" in (why_unseen() or "")
    monkeypatch.setattr(sys, "abiflags", "t")
    assert "mimalloc" in State().unknown()["python_live"]
    monkeypatch.undo()
    assert "free-threaded" not in (why_unseen() or "")
    assert "python_live" not in State().unknown()


SERVICE = f"""{ELSEWHERE}
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def quick(request):
    return PlainTextResponse("done")

app = Starlette(routes=[Route("/", quick)])
"""


@pytest.mark.e2e
def test_what_is_not_seen_is_unknown_everywhere_with_the_reason(
    observed: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    service = observed(SERVICE)
    why = "in no way that this agent knows"

    def worker() -> dict[str, Any] | None:
        (told,) = http(f"{service.monitor}/debug/memory").json()["workers"] or [{"state": ""}]
        return told if told["state"] == "answering" else None

    told = eventually(worker)
    assert {name: why in reason for name, reason in told["unknown"].items()} == {
        "tasks": True, "loop_lag": True, "connections": True,
    }  # fmt: skip
    assert told["tasks"] is None
    assert told["task_states"] is None
    assert told["loop_pending_seconds"] is None
    (part,) = http(f"{service.monitor}/debug/memory/tasks").json()["workers"]
    assert why in part["unknown"]
    metrics = http(f"{service.monitor}/metrics").body.decode()
    assert "memory_rss_bytes{" in metrics
    assert "asyncio_tasks{" not in metrics
    assert "event_loop_lag_seconds_" not in metrics
    assert told["verdict"]["confidence"] == "low"
    shown = subprocess.run(
        [sys.executable, "-m", "diagnostics", "status", service.monitor],
        check=False, capture_output=True, encoding="utf-8", timeout=60,
    ).stdout  # fmt: skip
    assert "tasks: unknown: asyncio of Python" in shown
    assert "no open streams" not in shown
    asked = subprocess.run(
        [sys.executable, "-m", "diagnostics", "capture", service.monitor, "--kind", "tasks", "--seconds", "0",
         "-o", str(tmp_path)],
        check=False, capture_output=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    assert "tasks unknown: asyncio of Python" in " ".join((asked.stdout + asked.stderr).split())
    refused = subprocess.run(
        [sys.executable, "-m", "diagnostics", "capture", service.monitor, "--kind", "retained", "--seconds", "0",
         "-o", str(tmp_path)],
        check=False, capture_output=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    assert refused.returncode == 3
    assert "what streams keep alive is unknown" in " ".join((refused.stdout + refused.stderr).split())


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio.all_tasks itself refuses such a task there")
def test_a_task_that_was_never_initialised_is_passed_over() -> None:
    """granian registers such tasks; to ask one for its coroutine may end the process."""
    hollow = asyncio.Task.__new__(asyncio.Task)
    asyncio.tasks._register_task(hollow)
    try:
        assert all(task is not hollow for task in alive_tasks())
    finally:
        asyncio.tasks._unregister_task(hollow)
