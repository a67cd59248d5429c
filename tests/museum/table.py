"""What an entry of exhibits.toml means, beyond what ../services/service.py says of any service."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..services import service as services
from ..services.environments import environment
from ..services.service import Request

HERE = Path(__file__).parent
APPS = HERE / "apps"
PYENV = Path.home() / ".pyenv" / "versions"
WORK = Request("/work")
LEAKY, FIXED, HEALTHY = "leaky", "fixed", "healthy"
_UVICORN = (
    "{bin}/python", "-m", "uvicorn", "--app-dir", "{apps}", "--port", "{port}", "--lifespan", "off", "--no-access-log",
    "--log-level", "warning",
)  # fmt: skip


@dataclass(frozen=True)
class Side(services.Service):
    """A service of the museum: an exhibit with its leak, the same without, or one that never had one.

    exhibit       the exhibit's name, which its two sides share
    side          LEAKY, FIXED or HEALTHY
    kind          what kind of leak; of a healthy one, what looks suspicious
    report        where it was told in public
    pinned        the requirements that the two sides differ by
    python        the version of CPython; empty: the one that runs the museum
    work          the request that is asked again and again, `a_second` times a second
    limit_mib     the limit of a cgroup of its own that it is started in, in MiB; {tmpfs} is then a folder in a tmpfs; 0: none
    held          a request that is opened `held_count` times before the work, and stays open
    accepted      verdicts that tell the kind rightly
    culprit       regular expressions; one of them must match what is named
    """

    apps: Path = APPS
    exhibit: str = ""
    side: str = HEALTHY
    kind: str = ""
    report: str = ""
    pinned: tuple[str, ...] = ()
    python: str = ""
    work: Request = WORK
    a_second: float = 10.0
    limit_mib: int = 0
    held: Request | None = None
    held_count: int = 0
    accepted: tuple[str, ...] = ()
    culprit: tuple[str, ...] = ()

    def interpreter(self) -> str:
        """The path of the interpreter that its environment is made with."""
        if not self.python:
            return str(getattr(sys, "_base_executable", sys.executable))
        return str(PYENV / self.python / "bin" / "python")

    def place(self) -> Path:
        """Its environment, made if it is not there yet. Raises NotInstalled."""
        return environment(f"museum-{self.name}", self.requirements, self.interpreter())


def read(path: Path = HERE / "exhibits.toml") -> dict[str, Side]:
    """Every side of every exhibit by its name: `NAME-leaky` and `NAME-fixed`, and the healthy ones by theirs."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    sides = [
        _side(f"{name}-{side}", side, name, entry)
        for name, entry in entries.get("leak", {}).items()
        for side in (LEAKY, FIXED)
    ]
    sides += [_side(name, HEALTHY, name, entry) for name, entry in entries.get("healthy", {}).items()]
    return {side.name: side for side in sides}


def _side(name: str, side: str, exhibit: str, entry: dict[str, Any]) -> Side:
    pinned = tuple(entry.get(side, ()))
    made: dict[str, Any] = {
        key: entry[key]
        for key in ("title", "kind", "report", "environment", "settings", "a_second", "held_count", "limit_mib")
        if key in entry
    }
    for key in ("accepted", "culprit", "beside"):
        made[key] = tuple(entry.get(key, ()))
    for key in ("ask", "work", "held"):
        if key in entry:
            made[key] = Request(**entry[key])
    return Side(
        name=name, side=side, exhibit=exhibit, pinned=pinned, requirements=(*entry.get("with", ()), *pinned),
        command=tuple(entry.get("command") or (*_UVICORN, entry["app"])), python=entry.get("python", {}).get(side, ""),
        **made,
    )  # fmt: skip
