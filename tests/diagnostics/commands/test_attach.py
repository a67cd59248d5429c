"""`diagnostics attach`, `--detach` and `watch`, on a real uvicorn that was started without us."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diagnostics.monitor.attach.folder import AgentFolder
from diagnostics.monitor.attach.ptrace import CAN_CALL

APP = """
import asyncio
from fastapi import FastAPI
from starlette.responses import StreamingResponse
app = FastAPI()
@app.get("/chat/{name}")
async def chat(name: str):
    async def body():
        while True:
            yield b"data: x\\n\\n"
            await asyncio.sleep(0.05)
    return StreamingResponse(body(), media_type="text/event-stream")
"""

pytestmark = pytest.mark.skipif(not CAN_CALL, reason="calls into a running Python are made on x86-64 only")


@pytest.fixture
def service(launch: Callable[..., Any], free_port: Callable[[], int], tmp_path: Path) -> Any:
    """(its process, a reader of one open stream)"""
    (tmp_path / "plain.py").write_text(APP, encoding="utf-8")
    port = free_port()
    started = launch(sys.executable, "-m", "uvicorn", "plain:app", "--port", str(port), "--no-access-log", cwd=tmp_path)
    started.wait_for("Uvicorn running")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    response = opener.open(f"http://127.0.0.1:{port}/chat/a", timeout=60)
    read: list[bytes] = []

    def go_on() -> None:
        try:
            while line := response.readline():
                read.append(line)
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    yield started, read
    left = AgentFolder.of(started.process.pid)
    if left is not None:
        left.remove()
    os.kill(started.process.pid, signal.SIGKILL)
    thread.join(60)
    response.close()


def audited(folder: Path) -> list[tuple[str, str, int, int]]:
    lines = [json.loads(line) for line in (folder / "audit.log").read_text(encoding="utf-8").splitlines()]
    return [(line["event"], line["outcome"], line["uid"], line["pid"]) for line in lines if "tach" in line["event"]]


def test_a_running_service_is_attached_to_shown_and_left_as_it_was(
    service: Any, launch: Callable[..., Any], http: Callable[..., Any], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    started, read = service
    pid, folder = started.process.pid, tmp_path / "dir"
    attach = [sys.executable, "-m", "diagnostics", "attach", "--dir", str(folder)]
    monitor = launch(*attach, str(pid), "--listen", "127.0.0.1:0", "--patience", "60")
    url = monitor.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")

    def streaming() -> Any:
        told = http(f"{url}/debug/memory").json()
        return told if [row for worker in told["workers"] for row in worker["streams"]] else None

    told = eventually(streaming)
    (worker,) = told["workers"]
    assert (worker["pid"], worker["state"]) == (pid, "answering")
    assert [row["route"] for row in worker["streams"]] == ["/chat/{name}"]
    assert worker["balance"]["parts"]["python_live"] > 0
    (attached,) = told["attached"]
    assert (attached["pid"], attached["uid"], attached["agent"]) == (pid, os.getuid(), True)
    assert attached["since"].endswith("Z")
    status = launch(sys.executable, "-m", "diagnostics", "status", url)
    status.wait_for(f"attached to process {pid} since")
    capture = http(f"{url}/debug/memory/captures", "POST", {"kind": "tasks", "force": True}).headers["Location"]
    state = eventually(lambda: (found := http(f"{url}{capture}").json())["state"] in ("done", "failed") and found)
    assert state["state"] == "done", state
    again = launch(*attach, str(pid), "--listen", url.removeprefix("http://"))
    assert again.end(0) == 1
    assert f"process {pid} has been attached to" in again.output
    before = len(read)
    assert monitor.end(signal.SIGINT) == 0
    assert f"detached from process {pid}" in monitor.output
    assert AgentFolder.of(pid) is None
    eventually(lambda: len(read) > before)
    assert started.process.poll() is None
    uid = os.getuid()
    assert audited(folder) == [
        ("attach", "done", uid, pid),
        ("attach", "attached", uid, pid),
        ("detach", "done", uid, pid),
    ]


def test_an_agent_that_stays_is_found_again_and_taken_out_from_another_terminal(
    service: Any, launch: Callable[..., Any], http: Callable[..., Any], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    started, _ = service
    pid, folder = started.process.pid, tmp_path / "dir"
    attach = [sys.executable, "-m", "diagnostics", "attach", "--dir", str(folder)]
    named = f"plain:app --port {port_of(pid)}"
    first = launch(*attach, "--match", named, "--listen", "127.0.0.1:0", "--stay", "--patience", "60")
    shown = first.wait_for("diagnostics http").split()[1]
    eventually(lambda: http(shown).status == 200)
    assert first.end(signal.SIGTERM) == 0
    assert AgentFolder.of(pid) is not None
    monitor = launch(sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0", "--dir", str(folder))
    url = monitor.wait_for("diagnostics http").split()[1]

    def workers() -> list[tuple[int, str]]:
        return [(worker["pid"], worker["state"]) for worker in http(url).json()["workers"]]

    eventually(lambda: workers() == [(pid, "answering")])
    out = launch(*attach, "--detach")
    assert out.end(0) == 0, out.output
    eventually(lambda: workers() == [])
    assert http(url).json()["attached"] == []
    assert started.process.poll() is None


def port_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"--port\0")[1].split(b"\0")[0].decode()


def test_who_is_told_to_end_while_it_attaches_takes_out_what_it_has_put_in(
    service: Any, launch: Callable[..., Any], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    started, _ = service
    attach = [sys.executable, "-m", "diagnostics", "attach", "--dir", str(tmp_path / "dir"), "--listen", "127.0.0.1:0"]
    attaching = launch(*attach, str(started.process.pid), "--patience", "60")
    eventually(lambda: AgentFolder.of(started.process.pid))
    assert attaching.end(signal.SIGTERM) in (0, 130), attaching.output
    assert AgentFolder.of(started.process.pid) is None
    assert started.process.poll() is None


def test_what_is_watched_from_outside_says_what_is_not_seen(
    service: Any, launch: Callable[..., Any], http: Callable[..., Any], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    started, _ = service
    pid = started.process.pid
    watching = launch(
        sys.executable, "-m", "diagnostics", "watch", str(pid), "--listen", "127.0.0.1:0", "--dir", str(tmp_path / "w")
    )
    url = watching.wait_for("diagnostics http").split()[1]
    watching.wait_for("nothing is put into it")
    (worker,) = eventually(lambda: http(url).json()["workers"])
    assert (worker["pid"], worker["state"], worker["connections"]["open"]) == (pid, "outside", 1)
    assert worker["balance"]["parts"]["mapped_files"] > 0
    assert worker["balance"]["parts"]["python_live"] is None
    assert "no agent" in worker["balance"]["unknown"]["python_live"]
    assert AgentFolder.of(pid) is None
    assert eventually(lambda: http(url).json()["workers"][0]["limit"]) is not None


def test_bad_usage_is_told(launch: Callable[..., Any], tmp_path: Path) -> None:
    attach = (sys.executable, "-m", "diagnostics", "attach", "--dir", str(tmp_path / "dir"))
    for words, says in (
        ((), "no process is named"),
        (("--detach",), "nothing is attached to"),
        (("--match", "no such program " + "x" * 30), "no process has"),
        (("--all-workers", "4194305"), "there is no process 4194305"),
        (("1", "--patience", "0"), "--patience is 0"),
        (("4194305", "--listen", "127.0.0.1:0"), "there is no process 4194305"),
    ):
        done = launch(*attach, *words)
        assert done.end(0) == 2, done.output
        assert says in done.output


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nsenter") is None, reason="namespaces are made by root only")
def test_from_an_ephemeral_container_process_1_of_the_service_is_attached_to(
    launch: Callable[..., Any], http: Callable[..., Any], eventually: Callable[..., Any], free_port: Any, tmp_path: Path
) -> None:
    """As `kubectl debug --target` has it: the PID namespace of the service, and none of its files or temporary folders."""
    (tmp_path / "plain.py").write_text(APP, encoding="utf-8")
    own = Path(tempfile.mkdtemp(dir="/tmp"))  # short, and empty everywhere but in the service's mount namespace
    port = free_port()
    serve = f"mount -t tmpfs tmpfs {own} && exec {sys.executable} -m uvicorn plain:app --port {port}"
    container = launch(
        "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", serve,
        cwd=tmp_path, env={"TMPDIR": str(own)},
    )  # fmt: skip
    container.wait_for("Uvicorn running")
    outer = container.process.pid
    inner = int(Path(f"/proc/{outer}/task/{outer}/children").read_text(encoding="utf-8").split()[0])
    beside = ["nsenter", "--target", str(inner), "--pid", "unshare", "--mount", "sh", "-c"]
    beside += ['mount -t proc proc /proc && exec "$0" "$@"', sys.executable, "-m", "diagnostics", "attach"]
    beside += ["--dir", str(tmp_path / "dir")]
    checked = launch(*beside, "--check", "1")
    assert checked.end(0) == 0, checked.output
    assert "process 1 (Python 3" in checked.output
    attached = launch(*beside, "1", "--listen", "127.0.0.1:0", "--stay", "--patience", "60")
    url = attached.wait_for("diagnostics http").split()[1]

    def workers() -> list[tuple[int, str]]:
        return [(worker["pid"], worker["state"]) for worker in http(url).json()["workers"]]

    eventually(lambda: workers() == [(1, "answering")])
    assert list(own.iterdir()) == []  # what is in it is in the service's mount namespace alone
    assert len(list(Path(f"/proc/{inner}/root{own}").iterdir())) == 1
    out = launch(*beside, "--detach", "1")
    assert out.end(0) == 0, out.output
    assert list(Path(f"/proc/{inner}/root{own}").iterdir()) == []
    eventually(lambda: workers() == [])
    own.rmdir()
