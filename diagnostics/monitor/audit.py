"""The audit log: each action or refused request with its time and its client. One line of JSON each, in `<root>/audit.log`.

    {"time": "2026-11-28T14:03:07.512Z", "event": "capture", "outcome": "begun", "who": "DIAGNOSTICS_TOKEN",
     "peer": "127.0.0.1:51234", "uid": 1000, "kind": "memray", "capture": "20261128T140307-512000-memray", ...}

| event | outcome | |
|---|---|---|
| capture | begun, or the refusal's code | a capture was asked for, by a person, a rule or a verdict |
| rule | done, failed, or dropped | an action of a rule beside a capture: `action`, `reason` where it was not done |
| attach, detach | done, or the refusal's code | the agent was put into a running process, or taken out, by a command |
| remove | done | a capture was cancelled or deleted |
| window | done | a profile of /debug/pprof was taken |
| artifact | sent | a file of a capture was fetched |
| egress | sent | a capture, or a recording, was sent to the object store |
| login | done | the login form was given a token |
| refusal | the status | a request was refused: no token, a wrong one, a foreign page or Host |

`who` is a token's name, never the token: `DIAGNOSTICS_TOKEN`, `DIAGNOSTICS_READ_TOKEN`, `nobody` (no token, or a wrong one),
`anybody` where no token is set, `rule NAME`, `the verdict` (captures that it takes itself), `the monitor` (egress), `the
command line`. `uid` is that of the client's socket on this machine, from the kernel (null for a peer elsewhere), or of the
user who ran the command. Those of the command line also have `login_uid`: who had logged in before `sudo` (null: nobody).

The file is bounded: at MAX_BYTES it is renamed to `audit.log.1`, replacing the older one. A client that is refused a thousand
times a second must not push out older lines: refusals beyond MAX_REFUSALS a minute are only counted, and the next line has
the count (`"not_written"`). Lines that cannot be written are counted, too, and reported in the monitor's own log.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ..errors import DiagnosticsError
from ..protocol import private_folder
from .kernel.sockdiag import owner_of

__all__ = ["ANYBODY", "MAX_BYTES", "MAX_REFUSALS", "NOBODY", "Asker", "Audit"]

log = logging.getLogger("diagnostics.monitor")

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_REFUSALS: Final = 60
_MINUTE: Final = 60.0
# Limit, in characters, of a text that a peer has sent (a path, an Origin).
_MAX_TEXT: Final = 200

ANYBODY, NOBODY = "anybody", "nobody"


@dataclass(frozen=True)
class Asker:
    """The client of a request.

    who           the name of the token that it has sent, see the top of this file
    peer, local   the two ends of the connection, (address, port)
    """

    who: str
    peer: tuple[str, int] | None = None
    local: tuple[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        if self.peer is None:
            return {"who": self.who, "peer": None, "uid": None}
        uid = owner_of(self.peer, self.local) if self.local else None
        return {"who": self.who, "peer": f"{self.peer[0]}:{self.peer[1]}", "uid": uid}


class Audit:
    """Writes the log of one monitor.

    path    the file; its folder is created, for its owner only, where it does not exist
    clock   monotonic seconds
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._minute_ends = 0.0
        self._left = MAX_REFUSALS
        self._not_written = 0
        self._failures: set[str] = set()

    def note(self, event: str, outcome: str, asker: Asker, **facts: Any) -> None:
        """Write one line. Never raises: diagnosing must work on a full disk, too."""
        if event == "refusal" and not self._may_write():
            self._not_written += 1
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "event": event,
            "outcome": outcome,
            **asker.to_json(),
            **{name: _plain(value) for name, value in facts.items()},
        }
        if self._not_written:
            line["not_written"] = self._not_written
        try:
            self._append(json.dumps(line).encode() + b"\n")
            self._not_written = 0
        except (OSError, DiagnosticsError, ValueError) as error:
            self._not_written += 1
            self._fails(error)

    def _may_write(self) -> bool:
        now = self._clock()
        if now >= self._minute_ends:
            self._minute_ends, self._left = now + _MINUTE, MAX_REFUSALS
        self._left -= 1
        return self._left >= 0

    def _append(self, line: bytes) -> None:
        private_folder(self.path.parent)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(descriptor).st_size + len(line) > MAX_BYTES:
                self.path.replace(self.path.with_name(self.path.name + ".1"))
                os.close(descriptor)
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_EXCL, 0o600)
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def _fails(self, error: Exception) -> None:
        if repr(error) not in self._failures and len(self._failures) < 10:
            self._failures.add(repr(error))
            log.error("the audit log %s cannot be written: %s", self.path, error)


def _plain(value: object) -> object:
    """A value that a peer may have sent, made short: a text is cut, a number stays, of any other value only the type."""
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    return f"({type(value).__name__})"
