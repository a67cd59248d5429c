"""`diagnostics capture` while another capture runs: it was refused, in the very moment in which the verdict takes its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

APP = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""


@pytest.mark.parametrize(("kind", "taken"), [("objects", "objects"), ("tasks", "tasks")])
def test_it_waits_for_what_runs_and_takes_it_where_it_is_the_same(
    observed: Any, http: Any, eventually: Any, tmp_path: Path, kind: str, taken: str
) -> None:
    service = observed(APP, env={"DIAGNOSTICS_LOOKS_PER_HOUR": "0"})
    output = tmp_path / "captured"

    def begin() -> Any:
        begun = http(f"{service.monitor}/debug/memory/captures", "POST", {"kind": "objects", "seconds": 8})
        return begun if begun.status == 202 else None  # the agent has not registered yet

    begun = eventually(begin, patience=60)
    command = [sys.executable, "-m", "diagnostics", "capture", service.monitor, "--kind", kind, "-o", str(output)]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", timeout=120, env=dict(os.environ), check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{begun.json()['id']} is being taken already; it is waited for" in done.stderr
    (folder,) = output.iterdir()
    assert folder.name.endswith(taken)
    assert (folder.name == begun.json()["id"]) == (kind == "objects")
