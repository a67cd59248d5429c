"""Who is a worker, what is beside it, and how a worker that is replaced is judged: over real servers and real forks."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FAST = {"DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.1"}
MIB = 1024**2

ASGI = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan here")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"VERSION"})
"""


class Run:
    """A command under `diagnostics run`, and what its monitor says."""

    def __init__(self, launched: Any, monitor: str, http: Any) -> None:
        self.launched, self.monitor, self._http = launched, monitor, http

    def memory(self) -> Any:
        return self._http(f"{self.monitor}/debug/memory").json()

    def workers(self) -> list[dict[str, Any]]:
        return list(self.memory()["workers"])

    def service(self) -> dict[str, Any]:
        return dict(self.memory()["service"])


@pytest.fixture
def run(launch: Any, http: Any, tmp_path: Path) -> Callable[..., Run]:
    def start(*command: str, env: dict[str, str] | None = None) -> Run:
        launched = launch(
            sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", *command,
            env={"DIAGNOSTICS_DIR": str(tmp_path / "dir"), **FAST, **(env or {})}, cwd=tmp_path,
        )  # fmt: skip
        monitor = launched.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
        return Run(launched, monitor, http)

    return start


def test_a_supervisor_whose_workers_served_is_no_worker_while_an_edit_is_broken(
    run: Any, http: Any, eventually: Any, free_port: Any, tmp_path: Path
) -> None:
    """uvicorn --reload: the parent holds the listening socket alone until the edit is mended, and gets an agent for it."""
    source, port = tmp_path / "asgi.py", free_port()
    source.write_text(ASGI.replace("VERSION", "one"), encoding="utf-8")
    service = run(sys.executable, "-m", "uvicorn", "asgi:app", "--port", str(port), "--reload")
    first = eventually(lambda: [one for one in service.workers() if one["state"] == "answering"], patience=60)
    (supervisor,) = service.service()["supervisors"]
    assert supervisor["pid"] not in {one["pid"] for one in first}

    source.write_text("this is no Python (\n", encoding="utf-8")

    def reloaded() -> bool:
        os.utime(
            source
        )  # the reloader may not have looked for the first time yet: it sees what is newer than its first look
        return first[0]["pid"] not in {one["pid"] for one in service.workers()}

    eventually(reloaded, patience=60)
    agent = tmp_path / "dir" / "agents" / f"{supervisor['pid']}.sock"
    # A process that holds a listening socket alone for a second may be given an agent: then, too, it is no worker.
    deadline = time.monotonic() + 5
    while not agent.exists() and time.monotonic() < deadline:
        # The child that is just being started for the edit may hold the socket for a moment.
        assert supervisor["pid"] not in {one["pid"] for one in service.workers()}
        time.sleep(0.1)
    eventually(lambda: service.workers() == [], patience=60)
    assert [one["role"] for one in service.service()["supervisors"]] == ["supervisor"]

    source.write_text(ASGI.replace("VERSION", "two"), encoding="utf-8")
    again = eventually(lambda: [one for one in service.workers() if one["state"] == "answering"], patience=60)
    assert [one["worker"] for one in again] == ["0"]
    assert again[0]["pid"] not in {first[0]["pid"], supervisor["pid"]}
    assert supervisor["pid"] in {one["pid"] for one in service.service()["supervisors"]}
    assert http(f"http://127.0.0.1:{port}/").body == b"two"


LEAKING = """
kept = []

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan here")
    if scope["path"] == "/leak":
        kept.extend(bytes(1000) for _ in range(400))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})
"""


@pytest.mark.timeout(300)
def test_a_leak_is_found_over_the_lives_of_a_worker_that_is_recycled(
    run: Any, http: Any, free_port: Any, tmp_path: Path
) -> None:
    """gunicorn's max_requests: each life grows by 24 MB and ends before it shows anything alone."""
    (tmp_path / "asgi.py").write_text(LEAKING, encoding="utf-8")
    port = free_port()
    service = run(
        sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1", "--max-requests", "60",
        "-k", "uvicorn_worker.UvicornWorker", "asgi:app", env={"DIAGNOSTICS_LOOKS_PER_HOUR": "6"},
    )  # fmt: skip
    deadline = time.monotonic() + 200
    pids: list[int] = []
    looks: list[dict[str, Any]] = []  # from the third life on
    of_fourth: list[dict[str, Any]] = []
    while len(pids) < 5 and time.monotonic() < deadline:
        for _ in range(10):
            with contextlib.suppress(OSError):  # between two lives nobody listens
                http(f"http://127.0.0.1:{port}/leak")
            time.sleep(0.06)
        for worker in service.workers():
            assert worker["worker"] == "0"
            pids += [worker["pid"]] if worker["pid"] not in pids else []
            looks += [worker["verdict"]] if len(pids) > 2 else []
            of_fourth += [worker["verdict"]] if pids[3:] == [worker["pid"]] else []
    assert len(pids) == 5
    alarms = [look for look in looks if look["alarm"]]
    # Between an end and the next look of the recorder, a life is not yet counted: once for each of the three that came.
    pauses = sum(1 for alarm, _ in itertools.groupby(look["alarm"] for look in looks) if not alarm)
    assert pauses <= 3, [look["verdict"] for look in looks]
    # However few looks there were of a life: it is told at the end of the fourth, which by itself shows nothing.
    assert of_fourth[-1]["alarm"], [look["verdict"] for look in looks]
    told = alarms[-1]
    assert told["verdict"] == "retained_objects"
    (says,) = (also["says"] for also in told["also"] if also["verdict"] == "recycled_growth")
    assert says.startswith("Each life of this worker grows by ")
    grown = float(says.split("grows by ")[1].split(" MiB")[0])
    assert 12 < grown < 40, says  # 24 MB were planted in each, and a life's first quarter is warm-up
    outlook = http(f"{service.monitor}/debug/memory/timeline?worker=0").json()["outlook"]["series"]
    assert outlook["in_use_bytes"]["state"] == "growing"
    assert outlook["in_use_bytes"]["lives"] >= 3
    assert 12 * MIB < outlook["in_use_bytes"]["per_life"] < 40 * MIB


PREFORK = """
import os, socket, sys, time

kept = [str(number) for number in range(1_500_000)]  # about 100 MiB that the children share
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        while not os.path.exists("copy"):
            time.sleep(0.05)
        for at in range(0, len(kept), 20_000):
            part = kept[at : at + 20_000]  # a reference to each object: its page is written to, and so copied
            del part
            time.sleep(0.02)
        while True:
            time.sleep(1)
    children.append(pid)
print("forked", *children, flush=True)
while True:
    time.sleep(1)
"""


def test_shared_pages_that_turn_private_are_told_though_no_rss_moves(
    run: Any, http: Any, eventually: Any, free_port: Any, tmp_path: Path
) -> None:
    (tmp_path / "prefork.py").write_text(PREFORK, encoding="utf-8")
    service = run(sys.executable, "-I", "prefork.py", str(free_port()))
    service.launched.wait_for("forked")

    def settled() -> Any:
        workers = service.workers()
        return len(workers) == 3 and all(one["memory"]["private_bytes"] is not None for one in workers) and workers

    before = eventually(settled, patience=60)
    assert all(one["memory"]["private_bytes"] < one["memory"]["rss_bytes"] / 2 for one in before)
    whole = eventually(lambda: (now := service.service())["pss_bytes"] and now)
    assert whole["pss_bytes"] < whole["rss_bytes"] / 2  # four processes have the same pages
    # Some readings of before: what is held now is told against them.
    rows = f"{service.monitor}/debug/memory/timeline?worker=0"
    eventually(lambda: len(http(rows).json().get("rows", ())) > 30, patience=60)
    (tmp_path / "copy").touch()

    def copied() -> Any:
        workers = service.workers()
        grown = [
            now["memory"]["private_bytes"] - was["memory"]["private_bytes"]
            for was, now in zip(before, workers, strict=True)
        ]
        told = [one["verdict"]["verdict"] for one in workers]
        return min(grown) > 32 * MIB and told == ["copy_on_write"] * 3 and workers

    after = eventually(copied, patience=90, what="copy_on_write of three workers")
    for was, now in zip(before, after, strict=True):
        assert now["memory"]["rss_bytes"] < was["memory"]["rss_bytes"] + 16 * MIB
        assert now["verdict"]["confidence"] == "high"
        assert "gc.freeze" in now["verdict"]["fix"]
    assert service.service()["pss_bytes"] > whole["pss_bytes"] + 3 * 32 * MIB
    metrics = http(f"{service.monitor}/metrics").body.decode()
    for name in ("memory_pss_bytes", "memory_private_bytes", "memory_children_bytes"):
        assert f'{name}{{worker="2"}}' in metrics


POOL = """
import multiprocessing, sys, time, wsgiref.simple_server

kept = []

def grow(_secret):
    while True:
        kept.append(b"x" * 200_000)
        time.sleep(0.05)

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"x"]

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    child = multiprocessing.Process(target=grow, args=("hunter2",), daemon=True)
    child.start()
    with wsgiref.simple_server.make_server("127.0.0.1", int(sys.argv[1]), app) as server:
        print("serving", child.pid, flush=True)
        server.serve_forever()
"""


def test_a_leak_in_a_child_that_does_not_listen_is_told_with_its_process(
    run: Any, http: Any, eventually: Any, free_port: Any, tmp_path: Path
) -> None:
    (tmp_path / "pool.py").write_text(POOL, encoding="utf-8")
    service = run(sys.executable, "pool.py", str(free_port()), "--password=hunter3")
    child = int(service.launched.wait_for("serving").split()[1])
    eventually(lambda: [one for one in service.workers() if one["state"] == "answering"], patience=60)

    def told() -> Any:
        (worker,) = service.workers()
        assert worker["pid"] != child
        verdict = worker["verdict"]
        assert (verdict["verdict"], verdict["confidence"]) != ("load_only", "high") or worker["children"]["count"] == 0
        # Growth in its first two minutes is told with low confidence, and accuses nobody yet.
        return verdict["verdict"] == "child_growth" and verdict["alarm"] and worker

    worker = eventually(told, patience=90, what="growth in a child")
    assert worker["children"]["count"] == 1
    assert worker["children"]["pss_bytes"] > 0
    (shown,) = service.service()["children"]
    assert (shown["pid"], shown["worker"], shown["role"]) == (child, "0", "child")
    assert "DIAGNOSTICS_AGENT=always" in shown["reason"]
    assert "hunter" not in str(service.memory())
    status = subprocess.run(
        [sys.executable, "-m", "diagnostics", "status", service.monitor],
        check=False, capture_output=True, encoding="utf-8", timeout=60, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert status.returncode == 1, status.stdout
    assert "Memory grows in child processes" in status.stdout
    assert str(child) in status.stdout
    assert "hunter" not in status.stdout


def test_a_child_that_was_given_an_agent_is_a_worker_and_is_captured(
    run: Any, http: Any, eventually: Any, free_port: Any, tmp_path: Path
) -> None:
    (tmp_path / "pool.py").write_text(POOL, encoding="utf-8")
    service = run(sys.executable, "pool.py", str(free_port()), env={"DIAGNOSTICS_AGENT": "always"})
    child = int(service.launched.wait_for("serving").split()[1])

    def answering() -> Any:
        return [one for one in service.workers() if one["pid"] == child and one["state"] == "answering"]

    (worker,) = eventually(answering, patience=60)
    assert service.service()["children"] == []
    begun = http(
        f"{service.monitor}/debug/memory/captures", "POST",
        {"kind": "objects", "seconds": 0.5, "worker": worker["worker"], "force": True},
    )  # fmt: skip
    assert (begun.status, begun.json().get("pid")) == (202, child), begun.body
    url = service.monitor + begun.headers["Location"]
    ended = eventually(lambda: (now := http(url).json())["state"] in ("done", "failed") and now, patience=60)
    assert ended["state"] == "done", ended
