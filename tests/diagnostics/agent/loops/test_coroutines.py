"""To be asked for its coroutine must not end a process, whatever became of the task: on 3.11 and 3.12 `get_coro` may."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# In a process of its own: that it goes on is what is tested.
STATES = """
import asyncio, json
from diagnostics.agent.loops.coroutines import coroutine_of

async def at_once():
    return "a result"

async def later():
    await asyncio.sleep(0)

async def main():
    loop = asyncio.get_running_loop()
    tasks = {"ended": loop.create_task(at_once()), "cancelled": loop.create_task(later())}
    tasks["cancelled"].cancel()
    await asyncio.wait(tasks.values())
    tasks["waiting"] = loop.create_task(later())
    tasks["never initialised"] = asyncio.Task.__new__(asyncio.Task)
    if hasattr(asyncio, "eager_task_factory"):
        tasks["ended at once"] = asyncio.Task(at_once(), loop=loop, eager_start=True)
        tasks["begun at once"] = asyncio.Task(later(), loop=loop, eager_start=True)
    print(json.dumps({state: getattr(coroutine_of(task), "__name__", None) for state, task in tasks.items()}))

asyncio.run(main())
"""
# Tasks come and go while another thread asks all that it sees, as a look at a server's tasks does.
COMING_AND_GOING = """
import asyncio, threading
from diagnostics.agent.loops.asyncio_tasks import alive_tasks
from diagnostics.agent.loops.coroutines import coroutine_of

async def brief():
    "".join(map(str, range(300)))

ending, asked = threading.Event(), 0

def ask():
    global asked
    while not ending.is_set():
        for task in alive_tasks():
            coroutine_of(task)
            asked += 1

async def main():
    loop = asyncio.get_running_loop()
    eager = {"eager_start": True} if hasattr(asyncio, "eager_task_factory") else {}
    until = loop.time() + 20
    while loop.time() < until and asked < 20_000:
        tasks = [asyncio.Task(brief(), loop=loop, **eager) for _ in range(200)]
        await asyncio.sleep(0)

import sys
sys.setswitchinterval(1e-5)
asking = threading.Thread(target=ask)
asking.start()
asyncio.run(main())
ending.set()
asking.join()
print(asked > 0)
"""


def output(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_task_can_be_asked_for_its_coroutine() -> None:
    found = json.loads(output(STATES))
    known = {"ended": "at_once", "cancelled": "later", "waiting": "later", "never initialised": None}
    assert {state: found[state] for state in known} == known
    if "begun at once" in found:
        assert found["begun at once"] == "later"
        # Where Python still knows it, it is told.
        assert found["ended at once"] in (None, "at_once")


@pytest.mark.timeout(150)
def test_tasks_can_be_asked_while_they_come_and_go() -> None:
    assert output(COMING_AND_GOING) == "True\n"
