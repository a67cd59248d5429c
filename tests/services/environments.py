"""Environments of the services: one each, made once and kept outside of the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

INSTALL_SECONDS = 1800.0


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "highwater" / "field"  # of both suites: an environment's name says what is in it


class NotInstalled(Exception):
    """An environment could not be made; says what pip said last."""


def environment(name: str, requirements: Sequence[str], python: str) -> Path:
    """The folder of an environment that has `requirements` and nothing else, made if it is not there yet.

    It is kept by the hash of the requirements and the version of Python. An environment is whole if `installed.txt` is in
    it (what pip then listed): a run that was interrupted leaves a folder without, and the next one makes it again.
    """
    version = _output([python, "-c", "import platform; print(platform.python_version())"]).strip()
    key = hashlib.sha256("\n".join(sorted(requirements)).encode()).hexdigest()[:12]
    folder = cache_folder() / f"{name}-{version}-{key}"
    if (folder / "installed.txt").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    _output([python, "-m", "venv", str(folder)])
    _output([*pip, "install", "--quiet", *requirements])
    listed = _output([*pip, "list", "--format", "freeze"])
    (folder / "installed.txt").write_text(listed, encoding="utf-8")
    return folder


def versions(folder: Path) -> dict[str, str]:
    """What an environment has: distribution, in small letters and with hyphens, to version."""
    lines = (folder / "installed.txt").read_text(encoding="utf-8").splitlines()
    return {name.lower().replace("_", "-"): version for name, _, version in (line.partition("==") for line in lines)}


def _output(command: list[str]) -> str:
    """What a command wrote to its standard output.

    raises    NotInstalled if it fails or takes more than INSTALL_SECONDS
    """
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired as late:
        raise NotInstalled(f"{' '.join(command)}: not done in {INSTALL_SECONDS:.0f} s") from late
    if done.returncode:
        raise NotInstalled(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
