"""`diagnostics fleet` on monitors that run: a table, captures of all, and what one has more than the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

APP = """
import asyncio, os
kept = []

async def keep():
    while True:
        kept.append(bytes(100_000))
        await asyncio.sleep(0.02)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if os.environ.get("KEEPS"):
            app.task = asyncio.create_task(keep(), name="keeper")
        await send({"type": "lifespan.startup.complete"})
        await receive()
"""


@pytest.fixture
def replicas(observed: Any, http: Any, eventually: Any, tmp_path: Path) -> list[str]:
    """The addresses of three monitors; the service of the last one keeps what it makes."""
    found = []
    for number in range(3):
        env = {"DIAGNOSTICS_DIR": str(tmp_path / f"{number}"), **({"KEEPS": "1"} if number == 2 else {})}
        found.append(observed(APP, env=env).monitor.removeprefix("http://"))
    for monitor in found:
        eventually(lambda monitor=monitor: http(f"http://{monitor}/debug/memory").json()["workers"])
    return found


@pytest.fixture
def fleet() -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "diagnostics", "fleet", *words],
            check=False, capture_output=True, encoding="utf-8", timeout=240, env=dict(os.environ),
        )  # fmt: skip

    return run


def test_a_fleet_is_one_table_captures_of_all_and_a_difference(
    replicas: list[str], fleet: Any, free_port: Any, tmp_path: Path
) -> None:
    gone = f"127.0.0.1:{free_port()}"
    status = fleet("--targets", ",".join([*replicas, gone]), "status")
    assert status.returncode in (0, 1), status.stdout + status.stderr  # 1 once the last one's growth is an alarm
    for name in (*replicas, gone):
        assert name in status.stdout
    assert "no answer" in status.stdout
    assert f"{gone}: no monitor answers at http://{gone}" in status.stdout
    told = json.loads(fleet("--targets", ",".join([*replicas, gone]), "status", "--json").stdout)
    assert [row["error"] != "" for row in told["replicas"]] == [row["name"] == gone for row in told["replicas"]]
    assert all(
        row["version"] and row["rss_bytes"] and row["streams"] == 0 for row in told["replicas"] if not row["error"]
    )

    folder = tmp_path / "kept"
    captured = fleet(
        "--targets", ",".join([*replicas, gone]), "capture", "--kind", "tasks", "--force", "-o", str(folder)
    )
    assert captured.returncode == 3  # of one there is none
    assert f"{gone}: no monitor answers" in captured.stderr
    whole = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
    assert {labels["replica"] for _, _, labels in whole["samples"]} == set(replicas)
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 3

    difference = fleet("--targets", ",".join(replicas), "diff", "--replica", replicas[2], "--kind", "tasks", "--force")
    assert difference.returncode == 0, difference.stderr
    assert f"what {replicas[2]} has more than 2 others have on average" in difference.stdout
    assert "keep" in difference.stdout
    top = fleet("--targets", ",".join(replicas), "top", "--kind", "tasks", "--force", "-n", "3")
    assert top.returncode == 0, top.stderr
    assert "tasks" in top.stdout


def test_errors_say_whose_fault_it_is(fleet: Any, free_port: Any) -> None:
    gone = f"127.0.0.1:{free_port()}"
    for words, code, says in (
        (("--targets", gone, "status"), 3, "none of 1 monitors answers"),
        (("--targets", gone, "top"), 3, "no replica was captured"),
        (("--targets", gone, "diff"), 2, "one replica has no others"),
        (("--targets", f"{gone},127.0.0.1:1", "diff", "--replica", "x"), 2, "there is no replica 'x'"),
        (("--targets", gone, "capture", "--odd"), 3, "0 replicas are not as the others"),
        (("--targets", "k8s:relay", "status"), 2, "names no label"),
    ):
        done = fleet(*words)
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr
