"""A visit: the service under `diagnostics run` with its defaults, at work, and what an on-call would see of it.

The verdict is read every few seconds. When it is an alarm of medium or high confidence and its sentence does not name the
culprit yet, the command that it names is typed, as an on-call would, and the verdict is read again: where it names another
command then, that is typed as well, and no third.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..services.exchange import monitor, streams, wait_until_ready
from ..services.running import Failed, Running, beside, running
from .limited import limited
from .named import Named, named
from .pace import paced
from .table import LEAKY, Side

_LOOK_SECONDS = 4.0
# A capture that is asked for, and the one that its verdict asks for then.
_COMMANDS = 2
# Looks after the command, until the verdict has taken in what was captured.
_LOOKS_AFTER = 3
_COMMAND_SECONDS = 120.0


@dataclass(frozen=True)
class Look:
    """One look at the verdict. `seconds` since the work began; `worker` is empty for the service as a whole."""

    seconds: float
    word: str
    confidence: str
    alarm: bool
    says: str
    worker: str
    next: str
    named: Named

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "named": self.named.shown()}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Look:
        return cls(**{**told, "named": Named(tuple(told["named"]))})

    @property
    def accuses(self) -> bool:
        return self.alarm and self.confidence != "low"


@dataclass
class Visit:
    """looks      in order; one that says what the one before said is left out, except the last
    command    what was typed, and when; what came of it is in `typed`
    requests   how many were answered, and how many failed with what error
    """

    looks: list[Look] = field(default_factory=list)
    command: str = ""
    typed: str = ""
    typed_seconds: float | None = None
    shown: Named = field(default_factory=Named)
    shown_seconds: float = 0.0
    requests: int = 0
    failed: int = 0
    error: str = ""

    @property
    def last(self) -> Look | None:
        return self.looks[-1] if self.looks else None

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "looks": [look.to_json() for look in self.looks], "shown": self.shown.shown()}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Visit:
        looks = [Look.from_json(look) for look in told["looks"]]
        return cls(**{**told, "looks": looks, "shown": Named(tuple(told["shown"]))})


def visit(side: Side, place: Path, folder: Path, seconds: float) -> Visit:
    """`seconds`: how long the work goes on at most. Raises Failed where the service does not run."""
    found = Visit()
    with (
        beside(side, folder) as upstream,
        limited(side) as (started, _used),
        running(started, place, folder / "seen", observed=True, upstream=upstream) as one,
    ):
        wait_until_ready(one)
        with _held(one), paced(one, side.work, side.a_second) as came_to:
            _watch(one, side, seconds, found)
            found.requests, found.failed, found.error = came_to.done, came_to.failed, came_to.error
    if found.failed > found.requests:
        raise Failed(f"{found.failed} requests failed, {found.requests} were answered: {found.error}")
    return found


@contextlib.contextmanager
def _held(one: Running) -> Iterator[None]:
    side = one.service
    assert isinstance(side, Side)
    if side.held is None:
        yield
        return
    with streams(one, side.held, side.held_count):
        yield


def _watch(one: Running, side: Side, seconds: float, found: Visit) -> None:
    began = time.monotonic()
    left_to_look: int | None = None
    typed: list[str] = []
    while time.monotonic() - began < seconds and left_to_look != 0:
        time.sleep(_LOOK_SECONDS)
        look = _look(one, time.monotonic() - began)
        if look is None:
            continue
        _kept(found, look)
        if left_to_look is not None:
            left_to_look -= 1
        if not look.accuses:
            continue
        if side.side == LEAKY and look.named.rank(side.culprit) is not None:
            return  # the sentence names it
        if look.next not in typed and len(typed) < _COMMANDS and " capture " in look.next:
            typed.append(look.next)
            _type(one, look, began, found)
            left_to_look = _LOOKS_AFTER
            if found.shown.rank(side.culprit) is not None:
                left_to_look = 1  # the rows name it: what the verdict makes of them is heard once more
        elif left_to_look is None and look.seconds > seconds / 2 and side.side != LEAKY:
            return  # accused, and no command to type: nothing more will be learnt of it


def _kept(found: Visit, look: Look) -> None:
    """Only what differs is kept of looks in a row, and the last one."""
    before = found.looks[-1] if found.looks else None
    again = len(found.looks) > 1 and (look.word, look.confidence) == (found.looks[-2].word, found.looks[-2].confidence)
    if before and again and (before.word, before.confidence) == (look.word, look.confidence):
        found.looks[-1] = look
    else:
        found.looks.append(look)


def _look(one: Running, seconds: float) -> Look | None:
    """The worst of what is said: an alarm of a worker, else of the service as a whole, else the worker's calm."""
    try:
        answer = monitor(one, "/debug/memory/verdict", timeout=30.0)
    except OSError:
        return None
    if answer.status != 200:
        return None
    told = answer.json()
    rows = [(row.get("worker", ""), row) for row in told["workers"]]
    if told.get("service"):
        rows.append(("", told["service"]))
    if not rows:
        return None
    worker, row = next(((worker, row) for worker, row in rows if row["alarm"]), rows[0])
    return Look(seconds, row["verdict"], row["confidence"], row["alarm"], row["says"], worker, row["next"], named(row))


def _type(one: Running, look: Look, began: float, found: Visit) -> None:
    """Type the command; what it captured is what the on-call sees next."""
    words = shlex.split(look.next)
    found.command = "; then ".join(filter(None, [found.command, look.next.replace(one.monitor, "URL")]))
    known = {row["id"] for row in _captures(one)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", *words, "-o", str(one.folder / "typed")], capture_output=True, encoding="utf-8",
            timeout=_COMMAND_SECONDS, check=False,
        )  # fmt: skip
        found.typed = f"exit code {done.returncode}: {(done.stdout + done.stderr)[-1500:]}"
    except subprocess.TimeoutExpired:
        found.typed = f"not done after {_COMMAND_SECONDS:.0f} s"
    found.typed_seconds = time.monotonic() - began
    new = [row for row in _captures(one) if row["id"] not in known and row["state"] == "done"]
    if new:
        found.shown = look.named.then(monitor(one, f"/debug/memory/captures/{new[-1]['id']}").json()["result"])
        found.shown_seconds = found.typed_seconds


def _captures(one: Running) -> list[dict[str, Any]]:
    told = monitor(one, "/debug/memory/captures").json()
    rows: list[dict[str, Any]] = told["captures"] if isinstance(told, dict) else told
    return rows
