"""Empty environments, made with every Python that is found, to install the wheel into.

What runs in one sees nothing of the checkout: neither its folder nor the environment that the tests run in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")

# What would steer a process under test, or lead it back to the checkout.
_STEERING = ("DIAGNOSTICS_", "RELAY_", "OTEL_", "PYTHON", "PYTEST_", "VIRTUAL_ENV", "MAKE", "MFLAGS", "PIP_CONSTRAINT")
_DESCRIBE = (
    "import ensurepip, sys, sysconfig; "
    "sysconfig.get_config_var('Py_GIL_DISABLED') or print(*sys.version_info[:2], sep='.')"
)


@lru_cache
def interpreters() -> dict[str, Path]:
    """Version -> an interpreter of it that can make environments: of those that run the tests, of pyenv, or on PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found: dict[str, Path] = {}
    for version in VERSIONS:
        name = f"python{version}"
        on_path = shutil.which(name)
        for candidate in (
            Path(sys.base_prefix) / "bin" / name,
            *sorted(pyenv.glob(f"{version}.*/bin/{name}")),
            *([Path(on_path)] if on_path else []),
        ):
            if version not in found and candidate.exists() and _version_of(candidate) == version:
                found[version] = candidate
    return found


def _version_of(python: Path) -> str:
    """`3.11`; nothing where it does not run, has no ensurepip (Debian's without python3-venv), or is free-threaded."""
    done = subprocess.run([python, "-c", _DESCRIBE], check=False, capture_output=True, encoding="utf-8", timeout=60)
    return done.stdout.strip() if done.returncode == 0 else ""


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and a folder outside of the checkout that commands run in."""

    prefix: Path
    folder: Path

    @classmethod
    def make(cls, python: Path, place: Path) -> Environment:
        folder = place / "work"
        folder.mkdir(parents=True)
        subprocess.run([python, "-m", "venv", place / "env"], check=True, timeout=300)
        return cls(place / "env", folder)

    @property
    def python(self) -> str:
        return str(self.prefix / "bin" / "python")

    def variables(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_STEERING)}
        return {
            **kept,
            "PATH": f"{self.prefix / 'bin'}{os.pathsep}{os.environ['PATH']}",
            # The versions that the tests run with: what others release tomorrow fails nothing here.
            "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONUNBUFFERED": "1",
            "DIAGNOSTICS_DIR": str(self.folder / "dir"),
            **(extra or {}),
        }

    def install(self, wheel: Path, extra: str) -> None:
        wanted = f"{wheel}[{extra}]" if extra else str(wheel)
        done = self.run("python", "-m", "pip", "install", "--quiet", wanted, patience=900)
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *words: str, patience: float = 120, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """One command to its end; `words[0]` is looked for in this environment first."""
        program = self.prefix / "bin" / words[0]
        return subprocess.run(
            [str(program) if program.exists() else words[0], *words[1:]],
            check=False,
            capture_output=True,
            encoding="utf-8",
            timeout=patience,
            cwd=cwd or self.folder,
            env=self.variables(),
        )
