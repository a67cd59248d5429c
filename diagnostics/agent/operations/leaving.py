"""How an agent that was put into a running process is told to go. It needs no capture's modules, so it loads none."""

from __future__ import annotations

from ...errors import BusyError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..state import State
    from .forked import Result

__all__ = ["leave"]


def leave(state: State, force: bool = False) -> Result:
    """Unload an agent that was put into the running process. `force`: even while a window is open.

    Raises UsageError where the agent was started with the process, BusyError while a window is open.
    """
    if state.leave is None:
        raise UsageError(
            "this agent came with its process (diagnostics run, or instrument(app)) and goes with it",
            remedy="start the service without it",
            code="not_attached",
        )
    if state.window_kind is not None and not force:
        raise BusyError(
            f"a {state.window_kind} window is open in this process",
            remedy="wait for its capture to end or cancel it; --force ends it",
        )
    state.leaving = True
    return {"leaving": True}
