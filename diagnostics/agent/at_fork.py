"""The agent's at-fork hooks, in a form that can be taken back.

`os.register_at_fork` has no counterpart: a function given to it stays, and keeps its module alive. An agent that
was put into a running process is to leave it as it was, and may be put in and taken out a thousand times. So Python is given
three small functions, once for a process, which call the functions in three lists; the lists can be emptied.

The functions and lists live in a module of their own in `sys.modules`, beside the agent, and are all of it that remains.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["let_go", "prepare", "register"]

_NAME = "_highwater_at_fork"

# Source of a separate module: a function keeps the globals of its module alive, and the agent's module must be free to go.
_REMAINS = """
import os
before, in_parent, in_child = [], [], []
def _call_before():
    for _, call in reversed(before): call()
def _call_in_parent():
    for _, call in in_parent: call()
def _call_in_child():
    for _, call in in_child[:]: call()
os.register_at_fork(before=_call_before, after_in_parent=_call_in_parent, after_in_child=_call_in_child)
"""


def register(
    *,
    owner: str,
    before: Callable[[], None] | None = None,
    after_in_parent: Callable[[], None] | None = None,
    after_in_child: Callable[[], None] | None = None,
) -> None:
    """`os.register_at_fork` for hooks that `let_go(owner)` removes. `owner`: the name of the calling copy of this package."""
    hooks = _hooks()
    for calls, call in ((hooks.before, before), (hooks.in_parent, after_in_parent), (hooks.in_child, after_in_child)):
        if call is not None:
            calls.append((owner, call))


def prepare() -> None:
    """Give Python the three functions now, if this process has not done so."""
    _hooks()


def let_go(owner: str) -> None:
    """Remove all hooks that `owner` has registered."""
    hooks = _hooks()
    for calls in (hooks.before, hooks.in_parent, hooks.in_child):
        calls[:] = [each for each in calls if each[0] != owner]


def _hooks() -> Any:
    hooks = sys.modules.get(_NAME)
    if hooks is None:
        hooks = type(os)(_NAME)
        # Not by `compile`: it makes all classes of the module `ast`, nearly a MiB in a process that has no other use for them.
        exec(_REMAINS, hooks.__dict__)  # noqa: S102  # six lines, from above
        sys.modules[_NAME] = hooks
    return hooks
