"""What a suite has to say of a service so that it can be started and asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
class Service:
    """requirements  what pip installs, with versions
    command       how it is started; {bin} is its environment's, {port} its port, {apps} the folder of the suite's apps,
                  {folder} an empty folder, where it is also started
    apps          that folder of apps
    environment   variables beside ours
    settings      variables for `diagnostics run` alone
    beside        a program of ours that it needs, whose first line names {upstream}
    ready         a line of its output that says that it is, where a port does not
    ask           answers soon; the service is ready when it does
    """

    name: str
    title: str
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    apps: Path = Path()
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    ready: str = ""
    ask: Request = Request()
