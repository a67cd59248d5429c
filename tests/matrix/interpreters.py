"""The CPython releases that Highwater claims, and where on this machine each can be had.

An interpreter is taken from PATH or from pyenv. Of the others Debian has most: they are made by debootstrap as a folder with a
small Debian in it (see roots.py), which takes some minutes once and is kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from roots import Root, why_no_root

__all__ = ["SUITES", "VERSIONS", "Interpreter", "Unavailable", "find", "of_words"]

# Oldest first; `requires-python` and the classifiers of pyproject.toml say the same, and a test compares them.
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
# Debian's suites whose python3 is that release.
SUITES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "testing"}

_ASK = "import sys; print('%d.%d %d.%d.%d' % (sys.version_info[:2] + sys.version_info[:3]), sys.implementation.name)"


@dataclass(frozen=True)
class Interpreter:
    """A CPython that tests can run on. `release` is 3.14, `version` 3.14.2; `root` is the Debian that it lives in, if any."""

    release: str
    version: str
    command: str
    root: Root | None = None

    @property
    def where(self) -> str:
        return f"a root of Debian {self.root.suite}" if self.root else "this machine"


@dataclass(frozen=True)
class Unavailable:
    """Why a release cannot be had here."""

    release: str
    reason: str


def find(release: str) -> Interpreter | Unavailable:
    """CPython of this release, made if need be."""
    for command in _candidates(release):
        version = _asked(command, release)
        if version is not None:
            return Interpreter(release, version, command)
    suite = SUITES.get(release)
    if suite is None:
        return Unavailable(release, f"python{release} is neither on PATH nor in pyenv, and no Debian suite has it")
    reason = why_no_root()
    if reason is not None:
        return Unavailable(release, f"python{release} is neither on PATH nor in pyenv; {reason}")
    root = Root(suite)
    try:
        root.make()
    except (OSError, subprocess.CalledProcessError) as error:
        return Unavailable(release, f"debootstrap of Debian {suite} failed: {error}")
    version = _asked("python3", release, root)
    if version is None:
        return Unavailable(release, f"Debian {suite} has another release of Python than {release}")
    return Interpreter(release, version, "/usr/bin/python3", root)


def of_words(words: list[str], own: str) -> list[str]:
    """Releases, oldest first, where "newest" stands for the newest of them and "another" for one that is neither it nor `own`.

    own   the release of the Python that asks
    """
    chosen: set[str] = set()
    for word in words:
        if word == "newest":
            chosen.add(VERSIONS[-1])
        elif word == "another":
            others = [release for release in reversed(VERSIONS[:-1]) if release != own]
            # What is on the machine needs no Debian to be made first.
            others.sort(key=lambda release: (not _local(release), release not in SUITES))
            chosen.add(others[0])
        elif word in VERSIONS:
            chosen.add(word)
        else:
            raise SystemExit(f"no such version: {word!r}; choose from {', '.join(VERSIONS)}, newest and another")
    return [release for release in VERSIONS if release in chosen]


def _local(release: str) -> bool:
    return any(_asked(command, release) is not None for command in _candidates(release))


def _candidates(release: str) -> list[str]:
    found = [shutil.which(f"python{release}"), shutil.which("python3")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    # The newest patch release first. A pre-release is called 3.15.0rc1 or 3.15-dev there: it does not count.
    numbered = [folder for folder in pyenv.glob(f"{release}.*") if folder.name[len(release) + 1 :].isdecimal()]
    numbered.sort(key=lambda folder: -int(folder.name.rpartition(".")[2]))
    return [*(str(folder / "bin" / "python") for folder in numbered), *(command for command in found if command)]


def _asked(command: str, release: str, root: Root | None = None) -> str | None:
    """The full version, if this is a CPython of that release that starts (pyenv's shims of other versions do not)."""
    words = [command, "-c", _ASK]
    try:
        ran = subprocess.run(root.enter(words) if root else words, capture_output=True, encoding="utf-8", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    told = ran.stdout.split()
    return told[1] if ran.returncode == 0 and told[:1] == [release] and told[2:] == ["cpython"] else None
