"""A live service whose child process grows: the verdict names the child."""

from __future__ import annotations

from typing import Any

APP = """
import subprocess, sys
from fastapi import FastAPI

app = FastAPI()
GROWS = "import time; kept = []\\nwhile True: kept.append(bytes(100_000)); time.sleep(0.02)"
RESTS = "import time; time.sleep(1000)"
children = {name: subprocess.Popen([sys.executable, "-c", code]) for name, code in (("grows", GROWS), ("rests", RESTS))}

@app.get("/pid/{name}")
def pid(name: str):
    return children[name].pid
"""
FAST = {"DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.05", "DIAGNOSTICS_RECORD_SECONDS": "60"}


def test_the_child_that_grows_is_the_culprit(observed: Any, http: Any, eventually: Any) -> None:
    service = observed(APP, env=FAST)
    grows = http(f"{service.url}/pid/grows").json()

    def look() -> Any:
        workers = http(f"{service.monitor}/debug/memory/verdict").json()["workers"]
        found = workers[0] if workers else {}
        return found if found.get("verdict") == "child_growth" and found["culprit"] else None

    told = eventually(look, patience=90)
    assert told["culprit"].endswith(f" -c, pid {grows}")
    assert told["culprit"] in told["says"]
