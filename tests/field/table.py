"""What an entry of services.toml means."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
APPS = HERE / "apps"


@dataclass(frozen=True)
class Request:
    """One HTTP request, or a command where the service is asked by other means ({seconds}: for how long at least)."""

    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    status: int = 200
    command: tuple[str, ...] = ()

    def payload(self) -> bytes | None:
        return None if self.body is None else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Expected:
    """What docs/any-service.md promises of a service.

    workers     how many processes have an agent that answers
    source      where the numbers of its connections come from: ledger, server or sockets
    route       open streams are shown one by one, each with this route; empty where they are not
    """

    workers: int = 1
    source: str = "sockets"
    route: str = ""


@dataclass(frozen=True)
class Service:
    """requirements  what pip installs, with versions
    shown         the distributions whose versions stand in the table
    command       how it is started; {bin} is its environment's, {port} its port, {apps} and {folder} see below
    environment   variables beside ours
    settings      variables for `diagnostics run` alone
    beside        a program of ours that it needs, whose first line names {upstream}
    ready         a line of its output that says that it is, where a port does not
    ask           answers soon; the service is ready when it does
    stream        goes on for as long as the client stays; or leaves its connection open, where a service has no streams
    load          answers within seconds; asked again and again
    signals       signals one after the other, of one run each; after one that does not end it, it must still answer
    varies        lines of its output (regular expressions) that are not the same in two runs without us either
    """

    name: str
    title: str
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    shown: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    ready: str = ""
    ask: Request = Request()
    stream: Request | None = None
    load: Request | None = None
    signals: tuple[tuple[str, ...], ...] = (("TERM",), ("INT",))
    varies: tuple[str, ...] = ()
    expect: Expected = Expected()


def read(path: Path = HERE / "services.toml") -> dict[str, Service]:
    entries = tomllib.loads(path.read_text())
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
