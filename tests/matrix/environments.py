"""A virtual environment for each interpreter, with this checkout installed in it as for development."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from interpreters import Interpreter
from roots import CHECKOUT, ENVIRONMENTS

__all__ = ["InstallError", "install", "within"]

_WHAT_DECIDES = ("pyproject.toml", "constraints.txt")


class InstallError(Exception):
    """The dependencies do not install on this interpreter; the message is pip's."""


def install(interpreter: Interpreter) -> Path:
    """The folder of the interpreter's environment, made or made anew where what is installed in it has changed."""
    place = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]
    system = interpreter.root.suite if interpreter.root else "here"
    folder = ENVIRONMENTS / f"{interpreter.version}-{system}-{place}"
    stamp, wanted = folder / "installed", _state()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run(interpreter, [interpreter.command, "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(interpreter, [*pip, "--constraint", "constraints.txt", "--editable", ".[dev]"])
    stamp.write_text(wanted, encoding="utf-8")
    return folder


def within(interpreter: Interpreter, words: list[str]) -> list[str]:
    """The command that runs `words` where this interpreter lives; to be started in the checkout."""
    return interpreter.root.enter(words) if interpreter.root else words


def _state() -> str:
    digest = hashlib.sha256()
    for name in _WHAT_DECIDES:
        digest.update((CHECKOUT / name).read_bytes())
    return digest.hexdigest()


def _run(interpreter: Interpreter, words: list[str]) -> None:
    ran = subprocess.run(
        within(interpreter, words),
        cwd=CHECKOUT,
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if ran.returncode != 0:
        raise InstallError((ran.stderr or ran.stdout).strip()[-1500:])
