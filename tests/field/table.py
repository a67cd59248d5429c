"""What an entry of services.toml means, beyond what ../services/service.py says of any service."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..services import service as services
from ..services.service import Request

HERE = Path(__file__).parent
APPS = HERE / "apps"


@dataclass(frozen=True)
class Expected:
    """What docs/any-service.md promises of a service.

    workers     how many processes have an agent that answers
    source      where the numbers of its connections come from: ledger, server or sockets
    route       open streams are shown one by one, each with this route; empty where they are not
    bytes       what the kernel holds for each of these streams is known
    """

    workers: int = 1
    source: str = "sockets"
    route: str = ""
    bytes: bool = True


@dataclass(frozen=True)
class Service(services.Service):
    """shown         the distributions whose versions stand in the table
    stream        goes on for as long as the client stays; or leaves its connection open, where a service has no streams
    load          answers within seconds; asked again and again
    signals       signals one after the other, of one run each; after one that does not end it, it must still answer
    varies        lines of its output (regular expressions) that are not the same in two runs without us either
    """

    apps: Path = APPS
    shown: tuple[str, ...] = ()
    stream: Request | None = None
    load: Request | None = None
    signals: tuple[tuple[str, ...], ...] = (("TERM",), ("INT",))
    varies: tuple[str, ...] = ()
    expect: Expected = Expected()


def read(path: Path = HERE / "services.toml") -> dict[str, Service]:
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: _service(name, entry) for name, entry in entries.items()}


def _service(name: str, entry: dict[str, Any]) -> Service:
    made: dict[str, Any] = {**entry}
    for key in ("requirements", "command", "beside", "varies", "shown"):
        made[key] = tuple(made.get(key, ()))
    for key in ("ask", "stream", "load"):
        if key in made:
            made[key] = Request(**{**made[key], "command": tuple(made[key].get("command", ()))})
    if "signals" in made:
        made["signals"] = tuple(tuple(run.split()) for run in made["signals"])
    made["expect"] = Expected(**made.get("expect", {}))
    made["shown"] = made["shown"] or tuple(
        requirement.partition("[")[0].partition("==")[0] for requirement in made["requirements"]
    )
    return Service(name=name, **made)
