"""One life of a service: started, asked, held, idle, told to end. Alone and under `diagnostics run` it is the same."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..services.exchange import ask, streams, wait_until_ready
from ..services.running import STOP_SECONDS, Failed, Running, descendants, running
from .table import Service

STREAMS = 3
# How long a signal may take to end a service that it ends, where another signal comes after it.
_SIGNAL_SECONDS = 3.0
_RELOAD_SECONDS = 20.0


@dataclass
class Life:
    """variables   the environment of the first process
    signals     each signal that was sent, and what came of it
    left        command lines of processes that outlived the service
    """

    running: Running
    variables: dict[str, str] = field(default_factory=dict)
    signals: dict[str, str] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)


def live(
    service: Service,
    environment: Path,
    folder: Path,
    signals: tuple[str, ...],
    *,
    observed: bool,
    upstream: str,
    held: Callable[[Running], None] = lambda running: None,
    idle: Callable[[Running], None] = lambda running: None,
) -> Life:
    """Live it. `held` is called while streams are open, `idle` when they are closed; raises Failed."""
    with running(service, environment, folder, observed=observed, upstream=upstream) as started:
        life = Life(started)
        wait_until_ready(started)
        life.variables = started.variables()
        if service.stream:
            with streams(started, service.stream, STREAMS):
                held(started)
        idle(started)
        family = {started.process.pid: "", **descendants(started.process.pid)}
        family.pop(started.process.pid)
        for number, name in enumerate(signals):
            life.signals[name] = _sent(started, name, last=number == len(signals) - 1)
        if started.process.poll() is not None:
            life.left = set(started.left_behind(family))
        return life


def _sent(started: Running, name: str, *, last: bool) -> str:
    if started.process.poll() is not None:
        return "it had ended before"
    began = time.monotonic()
    started.signal(name)
    code = started.ended_within(STOP_SECONDS if last else _SIGNAL_SECONDS)
    if code is not None:
        if last:
            started.seconds["stop"] = time.monotonic() - began
        return f"ends with {code}"
    deadline = time.monotonic() + _RELOAD_SECONDS
    while True:
        try:
            ask(started, started.service.ask)
            return "goes on"
        except (OSError, Failed, http.client.HTTPException):
            if started.process.poll() is not None:
                return f"ends late with {started.ended_within(0)}"
            if time.monotonic() > deadline:
                return "runs and does not answer"
            time.sleep(0.1)
