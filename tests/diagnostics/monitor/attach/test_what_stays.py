"""What an attach and a detach leave in a service: no bytecode, no finder, no module that the agent can do without."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diagnostics.monitor.attach import bytecode, folder
from diagnostics.monitor.attach.attach import attach, detach
from diagnostics.monitor.attach.folder import AgentFolder
from diagnostics.monitor.attach.interpreter import Interpreter, find_interpreter
from diagnostics.monitor.attach.ptrace import CAN_CALL
from diagnostics.monitor.workers.conversation import ask

PYENV = Path.home() / ".pyenv" / "versions"
PACKAGE = Path(folder.__file__).parents[2]

# It notes what is compiled in it, and answers each line on its standard input with what is in it. Its main thread comes by
# every hundredth of a second: in a read it would run no pending call.
SERVICE = """
import asyncio, json, os, select, sys
compiled = []
sys.addaudithook(lambda event, arguments: compiled.append(str(arguments[1])) if event == "compile" else None)
def facts():
    return json.dumps({
        "compiled": [name for name in compiled if "/diagnostics/" in name],
        "modules": sorted(sys.modules),
        "finders": list(map(repr, sys.meta_path)),
        "cached": [path for path in sys.path_importer_cache if "highwater-attached" in path],
        "threads": len(os.listdir("/proc/self/task")),
    })
while True:
    if select.select([0], [], [], 0.01)[0]:
        if not sys.stdin.readline():
            break
        print(facts(), flush=True)
"""
pytestmark = pytest.mark.skipif(not CAN_CALL, reason="calls into a running Python are made on x86-64 only")
needs_extension = pytest.mark.skipif(
    not (PACKAGE / "agent/readings/allocation/_figures.abi3.so").exists(), reason="the extension was not built here"
)


class Service:
    def __init__(self, words: tuple[str, ...], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [*words, "-c", SERVICE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, **env},
        )
        self.pid = self.process.pid
        self.facts()

    def facts(self) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("tell\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def visited(self) -> tuple[Any, Any, Any]:
        """What it tells before, with an agent that has been asked, and after that agent has gone."""
        before = self.facts()
        attach(self.pid, patience=60)
        (path,) = AgentFolder.of(self.pid).sockets()  # type: ignore[union-attr]
        for operation in ("hello", "reading", "sample", "connections"):
            asyncio.run(ask(path, operation, patience=60))
        with_agent = self.facts()
        detach(self.pid)
        deadline = time.monotonic() + 60
        while (after := self.facts())["threads"] > 1:
            assert time.monotonic() < deadline, after
            time.sleep(0.02)
        return before, with_agent, after


@pytest.fixture
def serving() -> Iterator[Callable[..., Service]]:
    started: list[Service] = []

    def start(*words: str, **env: str) -> Service:
        started.append(Service(words or (sys.executable,), env))
        return started[-1]

    yield start
    for each in started:
        left = AgentFolder.of(each.pid)
        if left is not None:
            left.remove()
        each.process.kill()
        each.process.communicate()


def python_of(version: str) -> str:
    python = PYENV / version / "bin" / "python"
    if not python.exists():
        pytest.skip(f"Python {version} is not installed by pyenv")
    return str(python)


@pytest.mark.parametrize("version", ["", "3.12.1", "3.13.0"])
def test_the_service_compiles_nothing_of_the_agent(serving: Any, version: str) -> None:
    """It compiled all of it, wherever it ran on another version: half a MiB that stayed, and the GIL for a second."""
    service = serving(python_of(version) if version else sys.executable)
    _, with_agent, after = service.visited()
    assert "_highwater_diagnostics.agent.endpoint" in with_agent["modules"]
    assert "_highwater_diagnostics.agent.operations.captures" not in with_agent["modules"]
    assert after["compiled"] == []


@pytest.mark.parametrize("option", ["-O", "-OO"])
def test_no_bytecode_is_left_where_the_services_settings_put_it(serving: Any, tmp_path: Path, option: str) -> None:
    service = serving(sys.executable, option, PYTHONPYCACHEPREFIX=str(tmp_path / "cache"), PYTHONDONTWRITEBYTECODE="")
    _, _, after = service.visited()
    assert after["compiled"] == []
    assert [path for path in tmp_path.rglob("*.pyc") if "highwater-attached" in str(path)] == []


@needs_extension
def test_what_stays_are_a_few_small_modules_and_no_finder(serving: Any) -> None:
    before, with_agent, after = serving(sys.executable, "-I").visited()
    assert "ctypes" not in after["modules"]
    came = {name.partition(".")[0] for name in set(after["modules"]) - set(before["modules"])}
    assert came <= {"__future__", "_bisect", "_highwater_at_fork", "_tracemalloc", "bisect", "gc"}
    assert after["finders"] == before["finders"] == with_agent["finders"]
    assert after["cached"] == []


def test_without_the_extension_and_without_bytecode_it_comes_and_goes_as_well(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container: another C library, and a program that is not run outside of it."""
    monkeypatch.setattr(folder, "_extensions", lambda: iter(()))
    monkeypatch.setattr(folder, "compiled", lambda *_: {})
    before, with_agent, after = serving(sys.executable).visited()
    assert with_agent["compiled"], "nothing was to be had but the sources"
    assert "ctypes" in after["modules"]
    assert after["finders"] == before["finders"]


def test_bytecode_of_another_python_is_not_loaded(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = folder._sources()
    monkeypatch.setattr(folder, "compiled", lambda *_: dict.fromkeys(sources, b"\0\0\r\n" + bytes(12) + b"no code"))
    _, with_agent, _ = serving(sys.executable).visited()
    assert len(with_agent["compiled"]) > 20


def test_only_a_python_of_the_own_namespaces_is_run_to_compile(tmp_path: Path) -> None:
    other = Interpreter((3, 99, 0), "")
    renamed = tmp_path / "service"
    os.symlink("/bin/sleep", renamed)
    with subprocess.Popen([renamed, "60"]) as process:
        try:
            assert bytecode.compiled(process.pid, other, (os.geteuid(), os.getegid()), PACKAGE, ["errors.py"]) == {}
        finally:
            process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces are made by root only")
def test_the_program_of_a_container_is_not_run_outside_of_it() -> None:
    words = ["unshare", "--mount", sys.executable, "-c", "print('up', flush=True); input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        assert isinstance(find_interpreter(process.pid), Interpreter)
        assert bytecode._program_of(process.pid) is None
        process.kill()
    with subprocess.Popen([sys.executable, "-c", "print('up', flush=True); input()"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        assert bytecode._program_of(process.pid) == os.path.realpath(sys.executable)
        process.kill()
