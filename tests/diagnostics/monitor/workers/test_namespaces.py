"""Monitor and service in namespaces of their own, as containers are: real ones, made by unshare(1) as root.

What is joined with whom, whose sockets stay, whose cgroup is read, and what is said after a real kill for want of memory.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diagnostics.monitor.kernel.process import identity, namespaced_pid
from diagnostics.monitor.kernel.short_path import short_path
from diagnostics.monitor.workers.acquaintance import not_the_one
from diagnostics.monitor.workers.listener import full_queue_holder
from diagnostics.monitor.workers.registry import Registry, listening_pid

ROOT = Path(__file__).parents[4]

AGENT = """
import os, sys
if len(sys.argv) > 2:
    os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
from diagnostics.agent import lifecycle
lifecycle.start(sys.argv[1])
print("listening", lifecycle._endpoint.path, flush=True)
sys.stdin.read()
lifecycle.stop()
"""
LOOK = """
import json, os, sys
from pathlib import Path
from diagnostics.monitor.workers.targets import Targets
targets = Targets(Path(sys.argv[1]))
print(json.dumps({"workers": [one.pid for one in targets.workers()], "unseen": sorted(targets.unseen), "pid": os.getpid()}))
"""
# A service that fills memory when it is told to, and a parent that lets it be: its exit status is nobody's here.
FILLING = """
import sys, time
from diagnostics.agent import lifecycle
lifecycle.start(sys.argv[1])
held = bytearray(8 << 20)
print("ready", flush=True)
while not __import__("os").path.exists(sys.argv[2]):
    time.sleep(0.05)
while True:
    held += bytes(1 << 20)
"""

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0
    or shutil.which("unshare") is None
    or subprocess.run(["unshare", "-p", "-m", "-C", "-f", "true"], capture_output=True, check=False).returncode != 0,
    reason="namespaces of one's own are made by root only, where the kernel lets it",
)
OWN_PIDS = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **more}


def start(*command: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=environment(**more), cwd=ROOT
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    process.wait(60)
    process.stdout.close()


def looked(folder: Path, *before: str) -> Any:
    done = subprocess.run(
        [*before, sys.executable, "-c", LOOK, str(folder)],
        capture_output=True,
        encoding="utf-8",
        env=environment(),
        check=True,
    )
    return json.loads(done.stdout)


def host_pids(processes: list[subprocess.Popen[str]]) -> list[int]:
    """What `unshare` has forked: the service itself, by its number here."""
    found = []
    for process in processes:
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
        found.append(int(listed[0]))
    return sorted(found)


@needs_namespaces
def test_two_containers_that_number_alike_share_a_folder_and_a_monitor_beside_them_joins_nobody(tmp_path: Path) -> None:
    services = [start(*OWN_PIDS, sys.executable, "-c", AGENT, str(tmp_path)) for _ in range(2)]
    try:
        names = {Path(first_line(service).split()[1]).name for service in services}
        assert names == {"1.sock", "1-2.sock"}, "one agent took the other's name"
        # In the same place as the services' own numbers a monitor has a process 1 of its own: itself.
        apart = looked(tmp_path, *OWN_PIDS)
        assert apart == {"workers": [], "unseen": ["1", "1-2"], "pid": 1}
        # /proc of another PID namespace: the kernel's numbers are not to be found in it.
        assert looked(tmp_path, "unshare", "--pid", "--fork", "--kill-child")["workers"] == []
        assert {path.name for path in (tmp_path / "agents").iterdir()} == names, "a live agent's socket was deleted"
        # Who sees the processes (the machine's own monitor, or shareProcessNamespace) sees them by the numbers they have here.
        assert looked(tmp_path)["workers"] == host_pids(services)
    finally:
        for service in services:
            end(service)
    assert list((tmp_path / "agents").iterdir()) == [], "an agent removed another's socket, or left its own"


@needs_namespaces
def test_an_agent_of_another_user_in_a_pid_namespace_of_its_own_keeps_its_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:  # pytest's own are closed to other users
        home = Path(made)
        home.chmod(0o755)
        root, temporary = home / "dir", home / "open"
        root.mkdir(mode=0o700)
        temporary.mkdir()
        temporary.chmod(0o1777)
        monkeypatch.setenv("TMPDIR", str(temporary))
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "diagnostics", home / "code" / "diagnostics", ignore=ignored)
        path_of_code = ("/usr/bin/env", f"PYTHONPATH={home / 'code'}")
        service = start(*OWN_PIDS, *path_of_code, readable_python(), "-c", AGENT, str(root), "65534")
        try:
            path = Path(first_line(service).split()[1])
            assert path.is_relative_to(temporary)
            assert looked(root, *OWN_PIDS)["unseen"] == ["1"]
            assert path.exists(), "the socket of a living agent was deleted"
            assert looked(root)["workers"] == host_pids([service])
        finally:
            end(service)


def readable_python() -> str:
    """An interpreter of at least 3.11 that another user may run."""
    for each in ("/usr/bin/python3", "/usr/local/bin/python3"):
        told = subprocess.run(
            [each, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True, encoding="utf-8", check=False
        ) if Path(each).exists() else None  # fmt: skip
        if told is not None and told.stdout.strip() == "True":
            return each
    pytest.skip("no Python 3.11 that another user may run is installed")


def test_an_agent_that_calls_itself_another_process_is_not_joined() -> None:
    own = identity(os.getpid())
    assert own is not None
    true = {"pid": namespaced_pid(os.getpid()), "start_ticks": own[0].start_ticks}
    assert not_the_one(true, os.getpid()) is None
    assert not_the_one({}, os.getpid()) is None  # an agent that tells nothing of itself (of an earlier version)
    assert "calls itself process 4194305" in (not_the_one({**true, "pid": 4194305}, os.getpid()) or "")
    assert "tick 5 " in (not_the_one({**true, "start_ticks": 5}, os.getpid()) or "")


def test_who_listens_behind_a_full_queue_is_found_by_the_socket_that_it_holds(tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    folder.mkdir(mode=0o700)
    path = folder / "1.sock"  # and process 1 holds no such socket
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        waiting = []
        try:
            for _ in range(3):
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                if waiting[-1].connect_ex(str(path)):
                    break
            assert full_queue_holder(path) == os.getpid()
            assert Registry(tmp_path).agents() == {os.getpid(): path}
        finally:
            for each in waiting:
                each.close()


def test_a_socket_is_reached_whose_path_from_here_is_longer_than_an_address(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 60) / ("y" * 60)
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener, short_path(folder / "1.sock") as address:
        listener.bind(address)
        listener.listen()
        assert listening_pid(folder / "1.sock") == os.getpid()


@needs_namespaces
def test_a_sidecar_sees_the_services_limit_and_that_the_kernel_killed_it(
    tmp_path: Path,
    memory_cgroup: Callable[[int], Path],
    launch: Callable[..., Any],
    http: Callable[..., Any],
    eventually: Callable[..., Any],
) -> None:
    """Each in a cgroup and a cgroup namespace of its own, with a mount that shows only that: Kubernetes' default."""
    limit = 96 << 20
    of_service, of_monitor = memory_cgroup(limit), memory_cgroup(2 << 30)
    version = 2 if (of_service / "memory.max").exists() else 1
    mount = (
        "mount -t cgroup2 none /sys/fs/cgroup"
        if version == 2
        else "mount -t tmpfs none /sys/fs/cgroup && mkdir /sys/fs/cgroup/memory && "
        "mount -t cgroup -o memory none /sys/fs/cgroup/memory"
    )

    def contained(folder: Path, *command: str) -> Any:
        script = f'echo $$ > {folder}/cgroup.procs && exec unshare -m -C sh -c \'{mount} && exec "$0" "$@"\' "$0" "$@"'
        return launch(
            "sh", "-c", script, *command, env={"PYTHONPATH": str(ROOT), "DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.2"}
        )

    go = tmp_path / "go"
    service = contained(of_service, sys.executable, "-c", FILLING, str(tmp_path / "dir"), str(go))
    service.wait_for("ready")
    monitor = contained(
        of_monitor,
        sys.executable,
        "-m",
        "diagnostics",
        "monitor",
        "--listen",
        "127.0.0.1:0",
        "--dir",
        str(tmp_path / "dir"),
    )
    url = monitor.wait_for("diagnostics http").split()[1]

    def limited() -> Any:
        told = http(url).json()
        return next((each for each in told["workers"] if each["limit"] and each["limit"]["limit_bytes"]), None) and told

    told = eventually(limited)
    (worker,) = told["workers"]
    assert (worker["pid"], worker["limit"]["limit_bytes"]) == (service.process.pid, limit)
    assert worker["balance"]["cgroup"]["folder"].startswith(f"/proc/{service.process.pid}/root/")
    assert told["service"]["charged"]["limit_bytes"] == limit
    go.touch()
    assert service.process.wait(60) == -9
    ended = eventually(lambda: http(url).json()["ends"])[0]
    assert ended["oom"], ended
    assert f"the kernel killed a process of its cgroup for memory (limit {limit} bytes)" in ended["said"]
