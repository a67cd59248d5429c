"""The start-up hook where people run it: gevent, eventlet, forks, other start-up hooks, dropped privileges, old Pythons."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diagnostics.agent.inject import HOOK_FOLDER
from diagnostics.agent.inject.launcher import launches
from diagnostics.monitor.kernel.family import why_no_agent
from diagnostics.protocol import MAX_REPLY_BYTES, frame, read_frame, request


def interpreters() -> list[str]:
    """Every CPython that is on PATH or under pyenv, newest patch of each version, by their paths."""
    found: dict[str, str] = {}
    for path in sorted((Path.home() / ".pyenv" / "versions").glob("*/bin/python")):
        found[".".join(path.parent.parent.name.split(".")[:2])] = str(path)
    for minor in range(6, 16):
        if path := shutil.which(f"python3.{minor}"):
            found.setdefault(f"3.{minor}", path)
    return [path for version, path in found.items() if re.fullmatch(r"\d\.\d+", version) and runs(path)]


def runs(path: str) -> bool:
    return subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0


def version(path: str) -> tuple[int, int]:
    told = subprocess.run(
        [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    major, minor = told.stdout.split(".")
    return int(major), int(minor)


ALL = {path: version(path) for path in interpreters()}
NEW = [path for path, number in ALL.items() if number >= (3, 11)]
OLD = [path for path, number in ALL.items() if number < (3, 11)]


class Agents:
    """The agents below one registry, asked over their sockets."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self) -> dict[int, Path]:
        """pid -> socket of those that can be asked: a moment before, it has a name and nobody listens."""
        return {int(path.stem): path for path in (self.root / "agents").glob("*.sock") if is_listened_on(path)}

    def ask(self, pid: int, op: str, **params: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(self.root / "agents" / f"{pid}.sock"))
            connection.sendall(frame(request(op, **params)))
            return read_frame(connection, MAX_REPLY_BYTES)


def is_listened_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(60)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


@pytest.fixture
def agents(tmp_path: Path) -> Agents:
    return Agents(tmp_path / "dir")


@pytest.fixture
def hooked(launch: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Starts a command as `diagnostics run` would; the service has no highwater of its own to import."""

    def start(*words: str | Path, env: dict[str, str] | None = None, **options: Any) -> Any:
        given = {"PYTHONPATH": HOOK_FOLDER, "DIAGNOSTICS_DIR": str(tmp_path / "dir")}
        return launch(*words, env={**given, **(env or {})}, **options)

    return start


GREEN = {
    "gevent": """
from gevent import monkey; monkey.patch_all()
import gevent, gevent.server
def busy():
    while True: kept.append(bytes(2000)); gevent.sleep(0.005)
kept = []
server = gevent.server.StreamServer(("127.0.0.1", 0), lambda client, address: None)
server.start()
gevent.spawn(busy)
print("ready", flush=True)
server.serve_forever()
""",
    "eventlet": """
import warnings; warnings.simplefilter("ignore")
import eventlet; eventlet.monkey_patch()
def busy():
    while True: kept.append(bytes(2000)); eventlet.sleep(0.005)
kept = []
eventlet.spawn(busy)
listener = eventlet.listen(("127.0.0.1", 0))
print("ready", flush=True)
eventlet.serve(listener, lambda client, address: None)
""",
}


@pytest.mark.parametrize("kind", list(GREEN))
def test_the_agent_is_no_greenlet_and_every_capture_works(
    hooked: Any, agents: Agents, eventually: Any, tmp_path: Path, kind: str
) -> None:
    service = hooked(sys.executable, "-c", GREEN[kind])
    service.wait_for("ready", patience=60)
    before = service.output
    eventually(lambda: agents() == {service.process.pid: agents.root / "agents" / f"{service.process.pid}.sock"})
    pid = service.process.pid
    first = agents.ask(pid, "reading")["result"]["allocators"]["in_use_bytes"]
    eventually(lambda: agents.ask(pid, "reading")["result"]["allocators"]["in_use_bytes"] > first + 50_000)
    for op in ("tasks", "objects.census", "retained"):
        assert "result" in agents.ask(pid, op), op
    assert "result" in agents.ask(pid, "tracemalloc.begin", seconds=5)
    time.sleep(0.3)
    profile = agents.ask(pid, "tracemalloc.finish")["result"]
    assert "<string>" in {file for _, file, _ in profile["frames"]}
    assert "result" in agents.ask(pid, "memray.begin", path=str(tmp_path / "x.bin"), seconds=5)
    assert agents.ask(pid, "memray.finish")["result"]["seconds"] > 0
    assert agents.ask(pid, "reading")["result"]["troubles"]["count"] == 0
    assert "Traceback" not in service.output.removeprefix(before)
    assert service.end(signal.SIGTERM, patience=60) == -signal.SIGTERM


@pytest.mark.e2e
def test_gunicorn_with_gevent_has_an_agent_in_each_worker_and_ends_without_a_word_of_it(
    hooked: Any, launch: Any, agents: Agents, eventually: Any, tmp_path: Path
) -> None:
    (tmp_path / "wsgi.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'x']\n",
        encoding="utf-8",
    )
    words = [
        sys.executable, "-m", "gunicorn", "-k", "gevent", "--workers", "2", "--bind", "127.0.0.1:0", "--no-control-socket",
        "--graceful-timeout", "20", "wsgi:app",
    ]  # fmt: skip
    service = hooked(*words, cwd=tmp_path)
    eventually(lambda: len(agents()) == 2, patience=60, what="two agents")
    for pid in agents():
        assert agents.ask(pid, "hello")["result"]["pid"] == pid
    # How soon is gunicorn's affair: a worker told to end just after its start waits for the graceful time-out, also alone.
    assert service.end(signal.SIGTERM, patience=60) == 0
    assert "Traceback" not in service.output


FORKS = """
import multiprocessing, os, sys, threading, time, warnings

def child(): pass

warnings.simplefilter("always")
warnings.showwarning = lambda *words: print("warned", words[0], flush=True)
deadline = time.monotonic() + 30
while len(os.listdir("/proc/self/task")) < 2 and time.monotonic() < deadline:  # until there is what might be warned of
    time.sleep(0.01)
print("threads", len(os.listdir("/proc/self/task")), flush=True)
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    deadline = time.monotonic() + 30
    while len(os.listdir("/proc/self/task")) < 2 and time.monotonic() < deadline:  # it comes back
        time.sleep(0.001)
    if len(os.listdir("/proc/self/task")) < 2:
        print("gone", flush=True)
for _ in range(3):
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
print("done", threading.active_count(), flush=True)
"""


@pytest.mark.parametrize("python", NEW)
@pytest.mark.parametrize("agent", ["", "always"])
def test_a_service_that_forks_is_not_warned_because_of_us(hooked: Any, python: str, agent: str) -> None:
    service = hooked(python, "-W", "error::DeprecationWarning", "-c", FORKS, env={"DIAGNOSTICS_AGENT": agent})
    assert service.wait_for("done", patience=60) == "done 1"
    assert service.process.wait(30) == 0
    assert service.output.splitlines() == ["threads 2", "done 1"]


CHILDREN = """
import os, time
kept = []
pid = os.fork()
if pid == 0 and os.fork() == 0:  # and a grandchild, of a process that has had no time for an agent
    kept.append(bytes(3_000_000))
os.write(1, b"ready %d\\n" % os.getpid())  # in one piece: print would mingle with the others
time.sleep(120)
"""


def test_forked_children_have_an_agent_where_it_is_asked_for(hooked: Any, agents: Agents, eventually: Any) -> None:
    service = hooked(sys.executable, "-c", CHILDREN, env={"DIAGNOSTICS_AGENT": "always"})
    pids = eventually(
        lambda: len(found := re.findall(r"ready (\d+)", service.output)) == 3 and {int(pid) for pid in found}
    )
    eventually(lambda: set(agents()) == pids, what=f"agents of {pids}")
    for pid in pids:
        assert agents.ask(pid, "hello")["result"]["pid"] == pid
    assert "diagnostics" not in service.output


OTHER_HOOK = """
import builtins, os
builtins.other_hook = True
"""
# As opentelemetry-instrument does.
OTHER_LAUNCHER = """
import os, sys
folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "theirs")
os.environ["PYTHONPATH"] = os.pathsep.join([folder, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
if os.environ["HOW"] == "execv":
    os.execv(sys.argv[1], sys.argv[1:])
elif os.environ["HOW"] == "execve":
    os.execve(sys.argv[1], sys.argv[1:], dict(os.environ))
else:
    import subprocess
    sys.exit(subprocess.call(sys.argv[1:], env=dict(os.environ) if os.environ["HOW"] == "env" else None))
"""
SERVING = """
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
print("ready", os.getpid(), other_hook, flush=True)
time.sleep(120)
"""


@pytest.mark.parametrize("how", ["execv", "execve", "spawn", "env"])
def test_a_launcher_with_a_start_up_hook_of_its_own_keeps_it_and_so_do_we(
    hooked: Any, agents: Agents, eventually: Any, tmp_path: Path, how: str
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sitecustomize.py").write_text(OTHER_HOOK, encoding="utf-8")
    (tmp_path / "launcher.py").write_text(OTHER_LAUNCHER, encoding="utf-8")
    service = hooked(sys.executable, tmp_path / "launcher.py", sys.executable, "-c", SERVING, env={"HOW": how})
    pid, theirs = service.wait_for("ready", patience=60).split()[1:]
    assert theirs == "True"
    eventually(lambda: set(agents()) == {int(pid)})
    assert Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("PYTHONPATH=")[1].split(":")[0] == HOOK_FOLDER
    if how in ("spawn", "env"):
        os.kill(int(pid), signal.SIGKILL)


@pytest.mark.e2e
def test_under_opentelemetry_instrument_there_are_both(
    hooked: Any, agents: Agents, eventually: Any, tmp_path: Path
) -> None:
    instrument = Path(sys.executable).parent / "opentelemetry-instrument"
    (tmp_path / "serving.py").write_text(
        SERVING.replace("other_hook", "'opentelemetry' in sys.modules"), encoding="utf-8"
    )
    service = hooked(instrument, sys.executable, tmp_path / "serving.py")
    pid, theirs = service.wait_for("ready", patience=60).split()[1:]
    assert theirs == "True"
    eventually(lambda: set(agents()) == {int(pid)})


@pytest.mark.parametrize(
    ("words", "is_one"),
    [
        (["python", "/bin/opentelemetry-instrument", "--traces_exporter", "none", "sh", "app:app"], True),
        (["python", "-m", "launcher", "/bin/sh", "-c", "x"], True),
        (["python", "-W", "error", "-m", "launcher", "sh"], True),
        (["python", "-m", "uvicorn", "app:app", "--port", "8000"], False),
        (["python", "-m", "debugpy", "--listen", "5678", "-m", "sh"], False),
        (["python", "-c", "print()"], False),
        (["python"], False),
        (["python", "sh"], False),
    ],
)
def test_a_launcher_is_known_by_a_word_that_names_a_program(words: list[str], is_one: bool) -> None:
    assert launches(words) == is_one


def test_a_hook_that_comes_first_and_ends_there_is_named(launch: Any, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sitecustomize.py").write_text(OTHER_HOOK, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "theirs"), HOOK_FOLDER])
    environment = {"PYTHONPATH": path, "DIAGNOSTICS_DIR": str(tmp_path / "dir")}
    service = launch(sys.executable, "-c", SERVING, env=environment)
    service.wait_for("ready")
    assert f"{tmp_path}/theirs/sitecustomize.py comes before the start-up hook" in why_no_agent(service.process.pid)
    cleaned = launch("env", "-i", sys.executable, "-c", SERVING.replace("other_hook", "1"))
    cleaned.wait_for("ready")
    assert "its PYTHONPATH has no start-up hook" in why_no_agent(cleaned.process.pid)


@pytest.mark.parametrize("python", OLD)
def test_an_older_python_is_told_once_and_its_version_is_the_reason(hooked: Any, python: str) -> None:
    program = (
        "import subprocess, sys, time\n"
        "assert 'sitecustomize' in sys.modules\n"
        "subprocess.check_call([sys.executable, '-c', 'pass'])\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush()\n"
        "time.sleep(120)\n"
    )
    service = hooked(python, "-c", program)
    service.wait_for("ready")
    said = [line for line in service.output.splitlines() if line != "ready"]
    number = ".".join(map(str, ALL[python]))
    assert len(said) == 1, service.output
    assert f"runs Python {number}" in said[0]
    assert f"it runs Python {number}, and the agent needs 3.11 or newer" in why_no_agent(service.process.pid)


DROPPING = """
import os, socket, time
if os.environ.get("DIAGNOSTICS_AGENT") == "always":
    while not any(name.endswith(".sock") for name in os.listdir(os.environ["DIAGNOSTICS_DIR"] + "/agents")):
        time.sleep(0.01)
listener = socket.create_server(("127.0.0.1", 0))
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
print("ready", os.getpid(), flush=True)
time.sleep(120)
"""


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder that every user can reach and write to, as the machine's /tmp is: pytest's own is for one user."""
    made = Path("/tmp") / f"highwater-test-{tmp_path.name}-{os.getpid()}"
    made.mkdir()
    made.chmod(0o1777)
    yield made
    shutil.rmtree(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
@pytest.mark.parametrize("agent", ["", "always"])
def test_a_service_that_drops_its_privileges_has_an_agent(
    launch: Any, http: Any, eventually: Any, tmp_path: Path, shared: Path, agent: str
) -> None:
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None or version(python) < (3, 11) or not readable_by_all(Path(HOOK_FOLDER)):
        pytest.skip("no Python 3.11 or newer that another user can run, or this checkout cannot be read by one")
    folder = tmp_path / "dir"
    service = launch(
        sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", python, "-c", DROPPING,
        env={"DIAGNOSTICS_DIR": str(folder), "DIAGNOSTICS_AGENT": agent, "TMPDIR": str(shared)},
    )  # fmt: skip
    monitor = service.wait_for("diagnostics http", patience=60).split()[1]
    service.wait_for("ready", patience=60)
    (worker,) = eventually(
        lambda: [one for one in http(monitor).json()["workers"] if one["state"] == "answering"], patience=30
    )
    assert Path(f"/proc/{worker['pid']}/status").read_text(encoding="utf-8").split("Uid:\t")[1].split()[1] == "65534"
    service.end(signal.SIGTERM, patience=60)
    assert not list(shared.rglob("*.sock")) + list(folder.rglob("*.sock"))


def readable_by_all(folder: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents))


def test_without_descriptors_the_agent_waits_and_answers_again(hooked: Any, agents: Agents, eventually: Any) -> None:
    program = (
        "import resource, socket, sys, time\nprint('ready', flush=True)\nfor line in sys.stdin: pass\ntime.sleep(120)\n"
    )
    service = hooked(sys.executable, "-c", program, env={"DIAGNOSTICS_AGENT": "always"})
    service.wait_for("ready")
    pid = service.process.pid
    eventually(lambda: pid in agents())
    assert "result" in agents.ask(pid, "reading")
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.settimeout(60)
        waiting.connect(str(agents()[pid]))
        waiting.sendall(frame(request("hello")))
        time.sleep(0.5)  # it has tried, and does not spin
        spent = cpu_seconds(pid)
        time.sleep(1.0)
        assert cpu_seconds(pid) - spent < 0.5
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert read_frame(waiting, MAX_REPLY_BYTES)["result"]["pid"] == pid
    troubles = agents.ask(pid, "reading")["result"]["troubles"]
    assert troubles["count"] >= 1
    assert "Too many open files" in troubles["last"]
    assert service.output == "ready\n"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_monitor_that_gives_up_leaves_no_trace_in_the_service(hooked: Any, agents: Agents, eventually: Any) -> None:
    program = (
        "import time; kept = ['x' * 50 + str(i) for i in range(200_000)]; print('ready', flush=True); time.sleep(120)"
    )
    service = hooked(sys.executable, "-c", program, env={"DIAGNOSTICS_AGENT": "always"})
    service.wait_for("ready")
    pid = service.process.pid
    eventually(lambda: pid in agents())
    for op in ("reading", "tasks", "objects.census"):
        with socket.socket(socket.AF_UNIX) as leaving:
            leaving.connect(str(agents()[pid]))
            leaving.sendall(frame(request(op)))
    for _ in range(3):
        assert "result" in agents.ask(pid, "hello")
    assert service.output == "ready\n"


STATE = """
import json, os, re, signal, sys, threading, time, warnings
umask = os.umask(0); os.umask(umask)
status = open("/proc/self/status").read()
print(json.dumps({
    "environ": {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "_")},
    "path": sys.path,
    "modules": sorted(name for name in sys.modules if not name.startswith("_highwater")),
    "handlers": {int(number): str(signal.getsignal(number)) for number in signal.valid_signals()},
    # Without 32 and 33, which glibc handles in every process that has had a second thread.
    "signals": [int(mask, 16) & ~(3 << 31) for mask in re.findall("Sig(?:Blk|Ign|Cgt):(.*)", status)],
    "umask": umask, "cwd": os.getcwd(), "fds": sorted(os.listdir("/proc/self/fd")),
    "threads": [thread.name for thread in threading.enumerate()],
    "filters": repr(warnings.filters), "flags": str(sys.flags), "argv": sys.argv, "orig_argv": sys.orig_argv,
    "nice": os.nice(0), "group": os.getpgrp() == os.getppid() or os.getpgrp() == os.getpid(),
    "hooks": [str(hook) for hook in (sys.excepthook, sys.unraisablehook, threading.excepthook)],
    "traced": [str(sys.gettrace()), str(sys.getprofile())],
    "meta_path": [getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path],
    "path_hooks": len(sys.path_hooks),
}))
"""
# Of the standard library, which the hook is made of; and Python's own import keeps the hook's file under its name. Up to
# Python 3.11 importlib.util brings contextlib, where nothing in site-packages has before.
BROUGHT = {
    "__future__", "contextlib", "importlib", "importlib._abc", "importlib._bootstrap", "importlib._bootstrap_external",
    "importlib.machinery", "importlib.util", "select", "sitecustomize",
}  # fmt: skip


@pytest.mark.parametrize("python", NEW)
def test_nothing_but_the_path_and_three_variables_changes_in_a_service(python: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DIAGNOSTICS_")}
    (tmp_path / "state.py").write_text(STATE, encoding="utf-8")
    run = [sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--"]

    def told(*words: str, **extra: str) -> dict[str, Any]:
        ended = subprocess.run(
            [*words, python, str(tmp_path / "state.py")],
            env={**environment, **extra}, capture_output=True, encoding="utf-8", check=True, cwd=tmp_path,
            start_new_session=True,
            timeout=60,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(ended.stdout)
        return found

    root = Path(HOOK_FOLDER).parents[3]
    alone = told(PYTHONPATH=str(root))
    beside = told(*run, PYTHONPATH=str(root), DIAGNOSTICS_DIR=str(tmp_path / "dir"))
    assert set(beside["environ"]) - set(alone["environ"]) == {"DIAGNOSTICS_DIR", "DIAGNOSTICS_MONITOR_URL"}
    alone["environ"] = {name: beside["environ"][name] for name in alone["environ"]}
    beside["environ"] = alone["environ"]
    brought = set(beside["modules"]) - set(alone["modules"])
    assert brought <= BROUGHT
    beside["modules"] = alone["modules"]
    assert beside == alone
