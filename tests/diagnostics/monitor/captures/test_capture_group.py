"""Services with several workers: a capture says which one it took, and takes all where that is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diagnostics.proof.subjects.processes import free_port

APP = """
from fastapi import FastAPI
app = FastAPI()
"""
ROOT = Path(__file__).parents[4]


@pytest.fixture
def two_workers(launch: Callable[..., Any], tmp_path: Path, http: Any, eventually: Any) -> str:
    """The monitor's address of a service with two workers."""
    (tmp_path / "service.py").write_text(APP, encoding="utf-8")
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(free_port()), "--workers", "2"]
    started = launch(
        sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", *command,
        env={"DIAGNOSTICS_DIR": str(tmp_path / "dir")}, cwd=tmp_path,
    )  # fmt: skip
    monitor = str(started.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory"))

    def answering() -> bool:
        workers = http(f"{monitor}/debug/memory").json()["workers"]
        return [worker["state"] for worker in workers] == ["answering", "answering"]

    eventually(answering, 60)
    return monitor


def capture(monitor: str, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diagnostics", "capture", monitor, "--kind", "tasks", "-o", str(output), *options]
    return subprocess.run(command, check=False, capture_output=True, encoding="utf-8", cwd=ROOT, timeout=100)


def test_a_capture_says_which_worker_it_took_and_all_are_taken_on_request(
    two_workers: str, http: Any, eventually: Any, tmp_path: Path
) -> None:
    address = f"{two_workers}/debug/memory/captures"
    workers = {one["worker"]: one["pid"] for one in http(f"{two_workers}/debug/memory").json()["workers"]}
    begun = http(address, "POST", {"kind": "tasks"}).json()
    assert (begun["worker"], begun["pid"], begun["workers"]) == ("0", workers["0"], ["0", "1"])
    eventually(lambda: http(f"{address}/{begun['id']}").json()["state"] == "done", 60)

    one = capture(two_workers, tmp_path / "one")
    assert one.returncode == 0, one.stderr
    assert f"worker 0 (pid {workers['0']}), one of 2; --worker 1 takes another, --all-workers each" in one.stderr

    every = capture(two_workers, tmp_path / "all", "--all-workers")
    assert every.returncode == 0, every.stderr
    folders = sorted((tmp_path / "all").iterdir(), key=lambda folder: folder.name[-1])
    assert [folder.name.rpartition("-")[2] for folder in folders] == ["0", "1"]
    taken = http(address).json()["captures"][:2]
    assert {one["worker"]: one["pid"] for one in taken} == workers
    for folder in folders:
        assert json.loads((folder / "profile.json").read_text(encoding="utf-8"))["kind"] == "tasks"
        assert str(folder / "tasks.txt") in every.stdout


def test_a_group_is_busy_cancelled_as_one_and_says_why_a_worker_is_left_out(
    two_workers: str, http: Any, eventually: Any
) -> None:
    address = f"{two_workers}/debug/memory/captures"
    assert http(address, "POST", {"kind": "tasks", "worker": "all", "frames": 3}).status == 422
    single = http(address, "POST", {"kind": "tasks", "worker": "1", "seconds": 60}).json()
    group = http(address, "POST", {"kind": "tasks", "worker": "all", "seconds": 60})
    assert (group.status, group.json()["worker"]) == (202, "all")
    assert [one["worker"] for one in group.json()["workers"]] == ["0", "1"]
    assert http(address, "POST", {"kind": "tasks", "worker": "all"}).json()["error"]["code"] == "busy"
    location = f"{two_workers}{group.headers['Location']}"
    first = eventually(lambda: http(location).json()["captures"], 60)[0]
    assert first["worker"] == "0"
    assert http(f"{address}/{first['id']}", "DELETE").status == 204
    ended = eventually(lambda: (found := http(location).json())["state"] != "running" and found, 60)
    assert ended["captures"] == []
    assert ended["not_taken"]["1"]["code"] == "busy"
    assert single["id"] in ended["not_taken"]["1"]["message"]
    again = http(address, "POST", {"kind": "tasks", "worker": "all", "seconds": 60}).json()
    eventually(lambda: http(f"{address}/{again['id']}").json()["captures"], 60)
    assert http(f"{address}/{again['id']}", "DELETE").status == 204
    assert http(f"{address}/{again['id']}").json()["state"] == "cancelled"
    states = {one["id"]: one["state"] for one in http(address).json()["captures"]}
    assert set(states) == {single["id"]}
