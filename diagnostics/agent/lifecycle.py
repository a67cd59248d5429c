"""One agent a process: started once, whoever asks, and alive again in forked workers.

`diagnostics run` loads this package under a private name; a service may also import `diagnostics` itself. There are then
two copies of this module in one process, and still only one agent: the copy that came second hands its ledger to the first.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from pathlib import Path
from typing import Any

from ..protocol import default_root
from .endpoint import Endpoint
from .forked import in_reading_fork
from .ledger import StreamLedger
from .operations import State

__all__ = ["PRIVATE_NAME", "is_running", "start", "stop"]

# What the start-up hook calls the package in other people's services.
PRIVATE_NAME = "_highwater_diagnostics"

_lock = threading.Lock()
_endpoint: Endpoint | None = None
_users = 0


def start(root: Path | None = None, ledger: StreamLedger | None = None) -> None:
    """Start this process's agent, or join the one that runs; `stop` as often as `start`.

    root    the registry's parent; DIAGNOSTICS_DIR, or the default monitor's folder
    Raises DiagnosticsError where the folder is not private or its path too long, OSError where it cannot be written.
    """
    elder = _elder()
    if elder is not None:
        elder.start(root, ledger)
        return
    global _endpoint, _users
    with _lock:
        if _endpoint is None:
            _endpoint = Endpoint(root or default_root(), State())
            _endpoint.start()
            atexit.register(_end_at_exit)
        _users += 1
        if ledger is not None and ledger not in _endpoint.state.ledgers:
            _endpoint.state.ledgers.append(ledger)


def stop(ledger: StreamLedger | None = None) -> None:
    """Take back one `start`; the last one ends the agent."""
    elder = _elder()
    if elder is not None:
        elder.stop(ledger)
        return
    global _endpoint, _users
    with _lock:
        if _endpoint is None:
            return
        if ledger in _endpoint.state.ledgers:
            _endpoint.state.ledgers.remove(ledger)
        _users -= 1
        if _users > 0:
            return
        ending, _endpoint = _endpoint, None
        atexit.unregister(_end_at_exit)
    ending.stop()


def _end_at_exit() -> None:
    """Remove the socket of an agent whose app never said that it ends."""
    global _endpoint
    with _lock:
        ending, _endpoint = _endpoint, None
    if ending is not None:
        ending.stop()


def is_running() -> bool:
    return _endpoint is not None


def _elder() -> Any:
    """The injected copy of this module, where there is one and it is not this."""
    if __name__.startswith(PRIVATE_NAME):
        return None
    return sys.modules.get(f"{PRIVATE_NAME}.agent.lifecycle")


def _after_fork_in_child() -> None:
    """A worker forked off a process with an agent gets an agent of its own, in the same registry."""
    global _endpoint, _lock
    if in_reading_fork():
        return
    _lock = threading.Lock()
    parent, _endpoint = _endpoint, None
    if parent is None:
        return
    parent.forget()
    _endpoint = Endpoint(parent.root, State(ledgers=parent.state.ledgers))
    _endpoint.start()


os.register_at_fork(after_in_child=_after_fork_in_child)
