"""One agent a process, started once however many callers start it, and its start in forked children.

`diagnostics run` loads this package under a private name; a service may also import `diagnostics` itself. There are then
two copies of this module in one process, and still only one agent: the later copy hands its ledger to the first.
"""

from __future__ import annotations

import atexit
import os
import sys

from ..errors import RefusedError
from ..protocol import default_root, dropped_root, private_folder
from . import at_fork
from .background import in_reading_fork
from .endpoint import Endpoint
from .state import State
from .unpatched import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from typing import Any

    from .background import Background
    from .ledger import StreamLedger

__all__ = [
    "PRIVATE_NAME",
    "is_running",
    "let_go_of_parents",
    "listens_at",
    "start",
    "start_attached",
    "start_injected",
    "stop",
]

# The name under which the start-up hook loads this package into other people's services.
PRIVATE_NAME = "_highwater_diagnostics"

_lock = allocate_lock()
_endpoint: Endpoint | None = None
_users = 0
_in_children = False


def start(root: str | PathLike[str] | None = None, ledger: StreamLedger | None = None) -> None:
    """Start this process's agent, or count one more user of the running one; each `start` needs a `stop`.

    root    the folder that holds `agents/`; default: DIAGNOSTICS_DIR, or the default monitor's folder
    ledger  the caller's; without one the agent is started in forked children too
    Raises DiagnosticsError where the folder is not private, OSError where it cannot be written.
    """
    elder = _elder()
    if elder is not None:
        elder.start(root, ledger)
        return
    global _in_children
    _join(root, ledger)
    _in_children = _in_children or ledger is None


def start_injected(within: Background | None = None) -> None:
    """The start-up hook's `start`, which has no `stop`: the agent outlives every app. Raises as `start` does.

    within   whose thread this is, to go on with as the agent's; default: the agent has a new thread
    """
    _join(None, None, within)


def start_attached(root: str, left: Callable[[], None]) -> Callable[[], None]:
    """The `start` of an agent that was put into a running process. The operation "leave" ends it, and then calls `left`.

    Returns what the calling thread has to run, as the agent's thread. Raises as `start` does.
    """
    _join(root, None, here=True)
    assert _endpoint is not None
    endpoint = _endpoint

    def leave() -> None:
        global _endpoint, _users
        with _lock:
            _endpoint, _users = None, 0
        atexit.unregister(_end_at_exit)
        endpoint.close()
        left()

    endpoint.state.leave = leave
    return endpoint.run


def _join(
    root: str | PathLike[str] | None, ledger: StreamLedger | None, within: Background | None = None, here: bool = False
) -> None:
    global _endpoint, _users
    with _lock:
        if _endpoint is None:
            _endpoint = _listening(root or default_root())
            if not here:
                _endpoint.start(within)
            atexit.register(_end_at_exit)
            _keep_heap(_endpoint.root)
        _users += 1
        if ledger is not None and ledger not in _endpoint.state.ledgers:
            _endpoint.state.ledgers.append(ledger)
            _label_streams(ledger)


def _keep_heap(root: str | PathLike[str]) -> None:
    """Sample the heap where DIAGNOSTICS_HEAP says so; a failure is reported with the readings and stops nothing else."""
    if os.environ.get("DIAGNOSTICS_HEAP", "off") == "off":
        return
    from . import heap

    heap.begin()
    heap.keep(root)


def _label_streams(ledger: StreamLedger) -> None:
    """Let samples of the heap have the route of the stream that they are for, where this process keeps both."""
    heap = _heap()
    # An agent that was put in may be newer than the package that the service has.
    if heap is not None and hasattr(ledger, "label_streams"):
        ledger.label_streams(heap.know_routes)


def _heap() -> Any:
    """The module `heap` if this process has loaded it, else None."""
    return sys.modules.get(f"{__package__}.heap")


def _listening(root: str | PathLike[str]) -> Endpoint:
    try:
        return Endpoint(root, State())
    except (PermissionError, RefusedError):
        if os.geteuid() == 0 or not _roots(root):
            raise
    # This process was started by root and has dropped its privileges: listen in its user's folder, which root's monitor reads.
    own = dropped_root(root, os.geteuid())
    private_folder(os.path.dirname(own))
    return Endpoint(own, State())


def _roots(root: str | PathLike[str]) -> bool:
    """Whether a folder belongs to root, or lies in one that this process may not enter."""
    try:
        return os.stat(root).st_uid == 0
    except PermissionError:
        return True
    except OSError:
        return False


def stop(ledger: StreamLedger | None = None) -> None:
    """Undo one `start`; the last `stop` ends the agent."""
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
    heap = _heap()
    if heap is not None:
        heap.end()


def _end_at_exit() -> None:
    """At exit: remove the socket of an agent whose app never called `stop`."""
    global _endpoint
    with _lock:
        ending, _endpoint = _endpoint, None
    if ending is not None:
        ending.stop()
    heap = _heap()
    if heap is not None:
        heap.settle()


def is_running() -> bool:
    return _endpoint is not None


def listens_at() -> str | None:
    """The path of the agent's socket; None where no agent runs."""
    return None if _endpoint is None else _endpoint.path


def _elder() -> Any:
    """The copy of this module that the start-up hook loads, imported if need be; None where this is it, or no hook ran."""
    if __name__.startswith(PRIVATE_NAME) or PRIVATE_NAME not in sys.modules:
        return None
    from importlib import import_module

    return import_module(f"{PRIVATE_NAME}.agent.lifecycle")


def let_go_of_parents() -> None:
    """In a forked child: drop the parent's agent. A child that serves gets one of its own, from the hook or from its app."""
    global _endpoint, _lock, _users
    if in_reading_fork():
        return
    _lock = allocate_lock()
    parent, _endpoint = _endpoint, None
    if parent is None:
        return
    _users = 0
    parent.forget()
    atexit.unregister(_end_at_exit)
    for ledger in parent.state.ledgers:
        ledger.start_anew()
    if _in_children:
        start(parent.root)


at_fork.register(owner=__package__, after_in_child=let_go_of_parents)
