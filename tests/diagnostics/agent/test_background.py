"""The agent's thread and forks of the service: what is imported at that moment can be imported in the child."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diagnostics.agent.background import Background, in_reading_fork, reading_fork

# The agent's first answer imports a module that the service has not, here slowly; the service forks meanwhile.
SERVICE = """
import importlib, importlib.machinery, os, signal, sys, threading, time

wanted, main, begun = sys.argv[1], threading.get_ident(), threading.Event()

class Slow:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != wanted or threading.get_ident() == main:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def slowly(module):
            begun.set()
            time.sleep(0.1)
            execute(module)
        spec.loader.exec_module = slowly
        return spec

assert wanted not in sys.modules
sys.meta_path.insert(0, Slow)
print("waits", flush=True)
assert begun.wait(60)
child = os.fork()
if child == 0:
    signal.alarm(20)
    importlib.import_module(wanted)
    os.write(1, b"imported\\n")
    signal.alarm(0)
    time.sleep(600)
os.write(1, b"forked %d\\n" % child)
os.waitpid(child, 0)
"""


# With the message, with the first reading, with the first child that the agent makes.
@pytest.mark.parametrize("module", ["json", "heapq", "ctypes"])
def test_what_the_agent_imports_while_the_service_forks_can_be_imported_in_the_child(
    module: str, launch: Callable[..., Any], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text(SERVICE, encoding="utf-8")
    run = launch(
        sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", sys.executable, "service.py", module,
        env={"DIAGNOSTICS_DIR": str(tmp_path / "dir"), "DIAGNOSTICS_AGENT": "always"}, cwd=tmp_path,
    )  # fmt: skip
    url = run.wait_for("diagnostics http").split()[1]
    if module == "ctypes":
        run.wait_for("waits")
        asked = urllib.request.Request(f"{url}/captures", json.dumps({"kind": "tasks", "force": True}).encode())
        asked.add_header("content-type", "application/json")
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert answer.status == 202
    run.wait_for("imported")
    child = int(run.wait_for("forked").split()[1])

    def answering() -> bool:
        with urllib.request.urlopen(url, timeout=10) as answer:
            workers = json.load(answer)["workers"]
        time.sleep(0.1)
        return any(worker["pid"] == child and worker["state"] == "answering" for worker in workers)

    eventually(answering, patience=60)


def test_a_fork_of_the_service_is_not_taken_for_the_agent_s_own_in_another_thread() -> None:
    begun, ends, own = threading.Event(), threading.Event(), []

    def forks() -> None:
        with reading_fork():
            own.append(in_reading_fork())
            begun.set()
            ends.wait(30)

    agent = threading.Thread(target=forks)
    agent.start()
    assert begun.wait(30)
    try:
        assert own == [True]
        assert not in_reading_fork()
    finally:
        ends.set()
        agent.join()


@pytest.mark.parametrize("fails", [False, True])
def test_a_thread_goes_on_with_the_work_that_it_was_handed_and_ends_when_that_is_to_end(fails: bool) -> None:
    threads: list[int] = []
    troubles: list[str] = []
    serves = threading.Event()

    def wait() -> None:
        threads.append(threading.get_native_id())
        waiting.hand_over(serving)
        if fails:
            raise OSError("after that")

    def serve() -> None:
        threads.append(threading.get_native_id())
        serves.set()
        while not serving.sleep(600):
            pass

    waiting = Background(wait, lambda error: troubles.append(str(error)))
    serving = Background(serve, lambda error: troubles.append(str(error)))
    waiting.start()
    assert serves.wait(60)
    assert threads[0] == threads[1]
    assert troubles == ["after that"] * fails
    assert serving.leave(60)
    assert not Path(f"/proc/self/task/{threads[0]}").exists()
