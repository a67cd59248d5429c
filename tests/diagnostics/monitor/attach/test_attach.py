"""Attaching to real processes of several Pythons, in their own namespaces too, and leaving them as they were."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diagnostics.errors import BusyError, DiagnosticsError, NotFoundError, RefusedError, TargetSilentError
from diagnostics.monitor.attach.attach import attach, detach
from diagnostics.monitor.attach.check import check
from diagnostics.monitor.attach.folder import AgentFolder
from diagnostics.monitor.attach.interpreter import find_interpreter
from diagnostics.monitor.attach.ptrace import CAN_CALL
from diagnostics.monitor.attach.remedies import REMEDIES
from diagnostics.monitor.workers.conversation import ask

ROOT = Path(__file__).parents[4]
PYENV = Path.home() / ".pyenv" / "versions"
TESTING = Path(os.environ.get("HIGHWATER_CACHE") or Path.home() / ".cache" / "highwater") / "roots" / "testing"

# A service of the standard library alone, for any Python: it streams, and tells what is in it on request.
SERVICE = """
import asyncio, json, os, signal, sys, threading, time
def facts():
    return {
        "modules": sorted(name for name in sys.modules if name.startswith("_highwater_diagnostics")),
        "main": sorted(vars(sys.modules["__main__"])),
        "threads": len(os.listdir("/proc/self/task")),
        "fds": len(os.listdir("/proc/self/fd")),
        "path": list(sys.path),
        "hooks": [repr(sys.getprofile()), repr(sys.gettrace()), repr(signal.getsignal(signal.SIGUSR1))],
        "blocks": sys.getallocatedblocks(),
    }
ticks = 0
async def talk(reader, writer):
    while line := await reader.readline():
        writer.write(json.dumps({**facts(), "ticks": ticks}).encode() + b"\\n")
        await writer.drain()
    writer.close()
async def main():
    global ticks
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while True:
        await asyncio.sleep(0.01)
        ticks += 1
asyncio.run(main())
"""

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="other users and namespaces are made by root only"
)
by_call = pytest.mark.skipif(not CAN_CALL, reason="calls into a running Python are made on x86-64 only")


class Talking:
    """A running SERVICE, and a connection to it that stays open."""

    def __init__(self, *command: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=env
        )
        assert self.process.stdout
        self.connection = socket.create_connection(("127.0.0.1", int(self.process.stdout.readline())), timeout=60)
        self.file = self.connection.makefile("rw")
        self.pid = self.process.pid

    def facts(self) -> Any:
        self.file.write("tell\n")
        self.file.flush()
        return json.loads(self.file.readline())

    def end(self) -> str:
        """What it wrote to its standard error."""
        self.file.close()
        self.connection.close()
        self.process.kill()  # first: `unshare` has a word to say of a child that was killed
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # in a PID namespace of its own it is another than what was started
        return self.process.communicate()[1]


@pytest.fixture
def talking() -> Iterator[Callable[..., Talking]]:
    """Starts services; at the end none of them has written anything to its standard error."""
    started: list[Talking] = []

    def start(*command: str, env: dict[str, str] | None = None) -> Talking:
        started.append(Talking(*command, env=env))
        return started[-1]

    yield start
    for each in started:
        folder = AgentFolder.of(each.pid)
        if folder is not None:
            folder.remove()
    said = [each.end() for each in started]
    assert said == [""] * len(started), "the service was made to print"


def settled(service: Talking, facts: Callable[[Any], bool]) -> Any:
    """What the service tells once `facts` holds: the agent's thread ends a moment after its socket."""
    deadline = time.monotonic() + 60
    while not facts(told := service.facts()):
        assert time.monotonic() < deadline, told
        time.sleep(0.05)
    return told


def read(pid: int) -> Any:
    """What the agent tells; the first reading loads ctypes, which opens its library's file for good."""
    (path,) = AgentFolder.of(pid).sockets()  # type: ignore[union-attr]
    return asyncio.run(ask(path, "reading", patience=60))


def cycle(service: Talking, times: int = 2) -> None:
    """Attach and detach, and see that everything came and went."""
    settled(service, lambda told: told["ticks"] > 0)
    attach(service.pid, patience=60)
    read(service.pid)
    detach(service.pid)
    before = settled(
        service, lambda told: not told["modules"] and told["threads"] == 1
    )  # modules of Python's own have come
    for _ in range(times):
        made = attach(service.pid, patience=60)
        with_agent = settled(service, lambda told: told["threads"] == 2)  # who loads it has ended
        assert "_highwater_diagnostics.agent.endpoint" in with_agent["modules"]
        told = read(service.pid)
        assert told["tasks"] >= 2
        assert told["allocators"]["in_use_bytes"] > 0
        assert made.who.pid == service.pid
        with pytest.raises(BusyError, match="has been attached to"):
            attach(service.pid)
        detach(service.pid)
        gone = {"modules": [], "threads": 1, "fds": before["fds"]}  # what woke its loop up is closed a moment later
        after = settled(service, lambda told, gone=gone: gone.items() <= told.items())  # type: ignore[misc]
        assert AgentFolder.of(service.pid) is None
        same = ("main", "fds", "path", "hooks")
        assert {name: after[name] for name in same} == {name: before[name] for name in same}
        assert after["ticks"] > with_agent["ticks"], "the service stood still"
    with pytest.raises(NotFoundError, match="has not been attached to"):
        detach(service.pid)


@by_call
def test_an_agent_comes_and_goes_and_leaves_the_service_as_it_was(talking: Any) -> None:
    cycle(talking(sys.executable, "-c", SERVICE))


@by_call
@pytest.mark.parametrize("version", ["3.12.1", "3.13.0"])
def test_an_agent_comes_into_another_python_that_has_nothing_of_ours(talking: Any, version: str) -> None:
    python = PYENV / version / "bin" / "python"
    if not python.exists():
        pytest.skip(f"Python {version} is not installed by pyenv")
    cycle(talking(str(python), "-I", "-c", SERVICE), 1)


@needs_root
def test_an_agent_comes_into_a_python_3_14_with_another_root(talking: Any) -> None:
    if not (TESTING / "usr/bin/python3.14").exists():
        pytest.skip("no Debian with Python 3.14 has been made here: python -m tests.matrix.run makes one")
    mounted = f"mount -t proc proc {TESTING}/proc && mount -t tmpfs tmpfs {TESTING}/tmp && "
    script = f'{mounted} exec chroot {TESTING} /usr/bin/python3.14 -I -c "$0"'
    service = talking("unshare", "--mount", "sh", "-c", script, SERVICE)
    assert find_interpreter(service.pid).version[:2] == (3, 14)  # type: ignore[union-attr]
    cycle(service)
    closed = talking("unshare", "--mount", "sh", "-c", script.replace(" -I", " -I -X disable-remote-debug"), SERVICE)
    with pytest.raises(RefusedError, match="remote debugging is disabled") as raised:
        attach(closed.pid)
    assert "PYTHON_DISABLE_REMOTE_DEBUG" in str(raised.value.remedy)
    assert AgentFolder.of(closed.pid) is None
    assert closed.facts()["modules"] == []


@by_call
@needs_root
def test_a_container_alike_another_root_user_and_numbers(talking: Any) -> None:
    """Its own mount and PID namespace, a temporary folder that nobody else sees, an unprivileged user, a hostile TMPDIR."""
    script = (
        "mount -t tmpfs -o mode=1777 tmpfs /tmp && exec setpriv --reuid 65534 --regid 65534 --clear-groups "
        '/usr/bin/python3 -I -c "$0"'
    )
    if find_python() is None:
        pytest.skip("no Python 3.11 to 3.13 that another user may run is installed as /usr/bin/python3")
    outer = talking(
        "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script, SERVICE,
        env={**os.environ, "TMPDIR": "/nowhere"},
    )  # fmt: skip
    outer.pid = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text(encoding="utf-8").split()[0])
    found = check(outer.pid)
    assert (found.problems, found.uid) == ([], 65534)
    attach(outer.pid, patience=60)
    folder = AgentFolder.of(outer.pid)
    assert folder is not None
    assert folder.inside.startswith("/tmp/highwater-attached-1-")
    assert not Path(folder.inside).exists(), "it is in the service's own temporary folder alone"
    detach(outer.pid)
    cycle(outer, 1)


def find_python() -> str | None:
    try:
        done = subprocess.run(["/usr/bin/python3", "--version"], capture_output=True, encoding="utf-8", check=False)
    except OSError:
        return None
    return "/usr/bin/python3" if done.stdout.startswith(("Python 3.11", "Python 3.12", "Python 3.13")) else None


@by_call
def test_a_detach_in_the_middle_of_a_capture_is_refused_and_may_be_forced(talking: Any) -> None:
    service = talking(sys.executable, "-c", SERVICE)
    attach(service.pid, patience=60)
    (path,) = AgentFolder.of(service.pid).sockets()  # type: ignore[union-attr]
    asyncio.run(ask(path, "tracemalloc.begin", patience=60, seconds=60))
    with pytest.raises(BusyError, match="a tracemalloc window is open"):
        detach(service.pid)
    assert asyncio.run(ask(path, "hello", patience=60))["window"] == "tracemalloc"
    detach(service.pid, force=True)
    settled(service, lambda told: not told["modules"] and told["threads"] == 1)


@by_call
def test_a_main_thread_that_never_comes_by_is_an_answer_and_nothing_comes_in_later(tmp_path: Path) -> None:
    """It is in C, and runs no Python; when it does, the agent's folder is gone, and nothing happens."""
    program = (
        "import os, sys, threading, ctypes\n"
        "print('in C', flush=True)\n"
        "ctypes.PyDLL(None).pause()\n"  # the whole interpreter: GIL and all
        "print([name for name in sys.modules if 'highwater' in name], flush=True)\n"
    )
    signal_program = "import signal; signal.signal(signal.SIGUSR1, lambda *_: None)\n" + program
    with subprocess.Popen(
        [sys.executable, "-c", signal_program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"in C\n"
            with pytest.raises(TargetSilentError, match="did not come by within 1 s"):
                attach(process.pid, patience=1)
            assert AgentFolder.of(process.pid) is None
            process.send_signal(signal.SIGUSR1)
            assert process.communicate(timeout=60) == (b"[]\n", b"")
            assert process.returncode == 0
        finally:
            process.kill()


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def problems(pid: int) -> list[str]:
    return [problem.code for problem in check(pid).problems]


def test_what_cannot_be_attached_to_is_told_before_it_is_tried() -> None:
    assert problems(4194305) == problems(0) == problems(-1) == ["no_process"]
    assert problems(os.getpid()) == ["itself"]
    with running("sleep", "60") as process:
        eventually_named(process.pid, "sleep")
        assert problems(process.pid) == ["not_python"]
        with pytest.raises(DiagnosticsError, match="is no Python: it runs /"):
            attach(process.pid)
    with running(sys.executable, "-c", "print(1, flush=True); input()") as process:
        assert process.stdout
        process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)
        assert os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert problems(process.pid) == ["stopped"]
        os.kill(process.pid, signal.SIGCONT)
    process = subprocess.Popen(["true"])
    try:
        assert os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert problems(process.pid) == ["zombie"]
    finally:
        process.wait()
    if os.geteuid() == 0:
        assert problems(2) == ["not_python"]  # a thread of the kernel


def eventually_named(pid: int, name: str) -> None:
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() != name:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("version", ["2.7.18", "3.8.18", "3.10.13"])
def test_a_python_that_is_too_old_is_told_with_its_version(version: str) -> None:
    python = PYENV / version / "bin" / ("python2.7" if version.startswith("2") else "python3")
    if not python.exists():
        pytest.skip(f"Python {version} is not installed by pyenv")
    with running(
        str(python), "-c", "import sys; sys.stdout.write('x\\n'); sys.stdout.flush(); sys.stdin.read()"
    ) as process:
        assert process.stdout
        process.stdout.readline()
        (problem,) = check(process.pid).problems
        assert (problem.code, version.rpartition(".")[0] in problem.says) == ("too_old", True)
        assert process.poll() is None


@needs_root
def test_without_the_right_to_trace_it_says_who_has_it() -> None:
    """As another user, by an interpreter that both may run."""
    if find_python() is None:
        pytest.skip("no Python that another user may run is installed as /usr/bin/python3")
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as made,
        running(sys.executable, "-c", "print(1, flush=True); input()") as process,
    ):
        assert process.stdout
        process.stdout.readline()
        Path(made).chmod(0o755)
        shutil.copytree(ROOT / "diagnostics", Path(made) / "diagnostics", ignore=shutil.ignore_patterns("__pycache__"))
        looked = (
            "import json, sys\nfrom diagnostics.monitor.attach.check import check\n"
            "print(json.dumps([each.to_json() for each in check(int(sys.argv[1])).problems]))"
        )
        done = subprocess.run(
            ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/python3", "-c", looked,
             str(process.pid)],
            cwd=made, capture_output=True, encoding="utf-8", check=True, env={"PYTHONPATH": made, "PATH": os.environ["PATH"]},
        )  # fmt: skip
        told = json.loads(done.stdout)
        assert told[0]["code"] == "another_user"
        assert "SYS_PTRACE" in told[0]["remedy"]["kubernetes"]


def test_every_problem_has_a_remedy_for_each_place() -> None:
    for code, remedy in REMEDIES.items():
        assert set(remedy) == {"linux", "docker", "kubernetes"}, code
        assert all(remedy.values()), code
