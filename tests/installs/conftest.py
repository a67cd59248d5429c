"""The checkout, copied; the wheel that it makes; and real processes from an environment that is no part of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Launched
from tests.installs.environments import ROOT, Environment


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build reads of the checkout, without what tests and builds have left in it."""
    copy = tmp_path_factory.mktemp("checkout")
    leavings = shutil.ignore_patterns("__pycache__", "*.pyc")
    for package in ("diagnostics", "relay"):
        shutil.copytree(ROOT / package, copy / package, ignore=leavings)
    for name in ("pyproject.toml", "README.md", "LICENSE", "Makefile", "constraints.txt"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="session")
def wheel(checkout: Path) -> Path:
    """What `make wheel` builds; with the environment of the tests, to save making one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "wheel", f"VENV={sys.prefix}"]
    done = subprocess.run(
        command, cwd=checkout, env=environment, check=False, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (checkout / "dist").glob("*.whl")
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Starts commands of an environment that go on, and ends whatever of them is left."""
    started: list[Launched] = []

    def launch(environment: Environment, *words: str, **options: Any) -> Launched:
        log = tmp_path / f"service-{len(started)}.log"
        program = environment.prefix / "bin" / words[0]
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [str(program) if program.exists() else words[0], *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=environment.folder,
                env=environment.variables(options.get("env")),
                start_new_session=True,
            )
        started.append(Launched(process, log))
        return started[-1]

    yield launch
    for launched in started:
        if launched.process.poll() is None:
            os.killpg(launched.process.pid, signal.SIGKILL)
        launched.process.wait()
