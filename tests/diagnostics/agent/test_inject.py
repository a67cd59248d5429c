"""The start-up hook in real interpreters: who gets an agent, who does not, and what it leaves untouched."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import diagnostics
from diagnostics.agent.inject import HOOK_FOLDER
from diagnostics.protocol import MAX_REPLY_BYTES, agent_socket, frame, read_frame, request

ROOT = Path(diagnostics.__file__).parent.parent

LISTENING = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def agents(tmp_path: Path) -> Callable[[], set[int]]:
    return lambda: {int(path.stem) for path in (tmp_path / "dir" / "agents").glob("*.sock")}


@pytest.fixture
def hooked(launch: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Starts Python with the hook alone on its path: the service has no highwater of its own to import."""

    def start(*words: str | Path, env: dict[str, str] | None = None, path: str = "", **options: Any) -> Any:
        given = {
            "PYTHONPATH": os.pathsep.join(filter(None, [HOOK_FOLDER, path])),
            "DIAGNOSTICS_DIR": str(tmp_path / "dir"),
        }
        return launch(sys.executable, *words, env={**given, **(env or {})}, **options)

    return start


def test_the_hook_is_cheap_and_imports_no_asyncio_and_leaves_the_path_alone(hooked: Any) -> None:
    program = (
        "import sys; print('asyncio' in sys.modules, 'logging' in sys.modules, 're' in sys.modules,"
        f" {HOOK_FOLDER!r} in sys.path, 'diagnostics' in sys.modules, 'done')"
    )
    assert hooked("-c", program).wait_for("done") == "False False False False False done"


def test_the_hook_makes_no_classes_of_ast(hooked: Any, tmp_path: Path) -> None:
    program = "print('ast:', any(kind.__name__ == 'AST' for kind in object.__subclasses__()))"
    # The built-in `compile` makes them, nearly a MiB; Python itself calls it for a file that it has no bytecode of.
    cached = {"PYTHONPYCACHEPREFIX": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": ""}
    hooked("-c", program, env=cached).wait_for("ast:")
    assert hooked("-c", program, env=cached).wait_for("ast:") == "ast: False"


def test_a_process_that_listens_without_a_loop_gets_an_agent_that_needs_no_asyncio(
    hooked: Any, agents: Any, eventually: Any
) -> None:
    program = LISTENING.replace(
        "time.sleep(60)", "time.sleep(3); print('asyncio' in sys.modules, flush=True); time.sleep(60)"
    )
    service = hooked("-c", program)
    eventually(lambda: agents() == {service.process.pid})
    assert service.wait_for("se") == "False"


def test_a_process_that_never_listens_gets_none_unless_it_is_asked_for(
    hooked: Any, agents: Any, eventually: Any
) -> None:
    program = "import time; print('ready', flush=True); time.sleep(60)"
    hooked("-c", program).wait_for("ready")
    always = hooked("-c", program, env={"DIAGNOSTICS_AGENT": "always"})
    eventually(agents)
    time.sleep(0.5)
    assert agents() == {always.process.pid}


FORKING = """
import asyncio, os, sys, time

async def serve():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    await asyncio.sleep(1.0)   # until the agent has seen it serve
    if sys.argv[1] == "helper":
        if os.fork() == 0:
            time.sleep(60)     # like a worker of a process pool: it inherits the listener and never accepts
    print("ready", flush=True)
    await asyncio.sleep(60)

if sys.argv[1] == "before":    # like gunicorn: the parent listens, its children accept
    import socket
    listener = socket.create_server(("127.0.0.1", 0))
    if os.fork():
        print("ready", flush=True)
        time.sleep(60)
    async def accept():
        await asyncio.start_server(lambda reader, writer: writer.close(), sock=listener)
        await asyncio.sleep(60)
    asyncio.run(accept())
asyncio.run(serve())
"""


def test_a_child_forked_off_a_worker_is_no_worker(hooked: Any, agents: Any, eventually: Any) -> None:
    service = hooked("-c", FORKING, "helper")
    service.wait_for("ready")
    time.sleep(1.5)  # longer than a listener without a loop has to be held
    assert agents() == {service.process.pid}


def test_of_a_parent_that_listens_and_a_child_that_accepts_the_child_is_the_worker(
    hooked: Any, agents: Any, eventually: Any
) -> None:
    service = hooked("-c", FORKING, "before")
    service.wait_for("ready")
    (worker,) = eventually(agents)
    time.sleep(1.5)
    assert agents() == {worker}
    assert worker != service.process.pid


def test_a_package_named_diagnostics_stays_the_services_own(
    hooked: Any, agents: Any, eventually: Any, tmp_path: Path
) -> None:
    (tmp_path / "diagnostics").mkdir()
    (tmp_path / "diagnostics" / "__init__.py").write_text("owner = 'the service'", encoding="utf-8")
    program = "import diagnostics; print(diagnostics.owner, flush=True)\n" + LISTENING
    service = hooked("-c", program, cwd=tmp_path)
    service.wait_for("the service")
    eventually(agents)


def test_a_service_that_imports_highwater_itself_still_has_one_agent_and_it_knows_the_ledger(
    hooked: Any, agents: Any, eventually: Any, tmp_path: Path
) -> None:
    program = (
        "from diagnostics import StreamLedger\n"
        "from diagnostics.agent import lifecycle\n"
        "ledger = StreamLedger()\n"
        "lifecycle.start(None, ledger)\n"
        "stream = ledger.open('/s')\n" + LISTENING
    )
    service = hooked("-c", program, path=str(ROOT))
    service.wait_for("ready")
    time.sleep(1.5)  # longer than a listener without a loop has to be held
    assert agents() == {service.process.pid}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(agent_socket(tmp_path / "dir", service.process.pid)))
        connection.sendall(frame(request("reading")))
        told = read_frame(connection, MAX_REPLY_BYTES)["result"]
    assert told["ledger"]["routes"]["/s"]["open"] == 1


def test_a_sitecustomize_that_was_there_before_runs_as_if_alone(hooked: Any, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text("import builtins; builtins.customised = __file__", encoding="utf-8")
    program = "import sys; print(customised, sys.modules['sitecustomize'].__file__ == customised)"
    service = hooked("-c", program, path=str(theirs))
    assert service.wait_for("sitecustomize").split() == [str(theirs / "sitecustomize.py"), "True"]


def test_a_sitecustomize_that_fails_is_reported_as_python_always_does(hooked: Any, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text("import no_such_module", encoding="utf-8")
    service = hooked("-c", "print('started')", path=str(theirs))
    service.wait_for("started")
    assert "Error in sitecustomize" in service.output
    assert "no_such_module" in service.output


@pytest.mark.parametrize("flag", ["-I", "-E", "-S"])
def test_flags_that_shut_the_hook_out_do_so(hooked: Any, agents: Any, flag: str) -> None:
    service = hooked(flag, "-c", LISTENING)
    service.wait_for("ready")
    time.sleep(1.5)
    assert agents() == set()


def test_an_agent_that_cannot_start_is_said_and_the_service_goes_on(hooked: Any, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the registry should be", encoding="utf-8")
    service = hooked("-c", LISTENING, env={"DIAGNOSTICS_DIR": str(tmp_path / "taken"), "DIAGNOSTICS_AGENT": "always"})
    service.wait_for("ready")
    assert "runs without its agent" in service.output


def test_the_resource_tracker_and_spawned_children_get_none(hooked: Any, agents: Any, tmp_path: Path) -> None:
    (tmp_path / "pool.py").write_text(
        "import multiprocessing, os\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        assert pool.apply(os.getpid) != os.getpid()\n"
        "    print('pooled', flush=True)\n",
        encoding="utf-8",
    )
    hooked(tmp_path / "pool.py").wait_for("pooled")
    assert agents() == set()


def test_without_a_registry_the_hook_does_nothing() -> None:
    environment = {**os.environ, "PYTHONPATH": HOOK_FOLDER}
    environment.pop("DIAGNOSTICS_DIR", None)
    program = "import sys; print([name for name in sys.modules if 'highwater' in name])"
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, encoding="utf-8", check=True
    )
    assert (ended.stdout, ended.stderr) == ("[]\n", "")
