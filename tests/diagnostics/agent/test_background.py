"""The agent's thread and forks of the service: what is imported at that moment can be imported in the child."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The agent's first answer imports ctypes, here slowly; the service forks meanwhile.
SERVICE = """
import importlib.machinery, os, signal, sys, threading, time

main, begun = threading.get_ident(), threading.Event()

class Slow:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "ctypes" or threading.get_ident() == main:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def slowly(module):
            begun.set()
            time.sleep(0.1)
            execute(module)
        spec.loader.exec_module = slowly
        return spec

assert "ctypes" not in sys.modules
sys.meta_path.insert(0, Slow)
print("waits", flush=True)
assert begun.wait(60)
child = os.fork()
if child == 0:
    signal.alarm(20)
    import ctypes
    print("imported", flush=True)
    signal.alarm(0)
    time.sleep(600)
print("forked", child, flush=True)
os.waitpid(child, 0)
"""


def test_what_the_agent_imports_while_the_service_forks_can_be_imported_in_the_child(
    launch: Callable[..., Any], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text(SERVICE, encoding="utf-8")
    run = launch(
        sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", sys.executable, "service.py",
        env={"DIAGNOSTICS_DIR": str(tmp_path / "dir"), "DIAGNOSTICS_AGENT": "always"}, cwd=tmp_path,
    )  # fmt: skip
    url = run.wait_for("diagnostics http").split()[1]
    run.wait_for("imported")
    child = int(run.wait_for("forked").split()[1])

    def answering() -> bool:
        with urllib.request.urlopen(url, timeout=10) as answer:
            workers = json.load(answer)["workers"]
        time.sleep(0.1)
        return any(worker["pid"] == child and worker["state"] == "answering" for worker in workers)

    eventually(answering, patience=60)
