"""The functions of `os.register_at_fork`, as roots: the interpreter keeps them in three lists to which no Python object refers.

Each list is found by registering a function of our own and searching for the list that holds it. A hook cannot be removed
again, so this is done in a forked child only, which never forks and leaves by `os._exit`.
"""

from __future__ import annotations

import gc
import os
from typing import Any

__all__ = ["ForkHooks", "fork_hooks"]

_WHEN = ("before", "after_in_parent", "after_in_child")


class ForkHooks:
    """One of the three lists of fork hooks; `name` has its keyword in `os.register_at_fork`."""

    __slots__ = ("held", "name")

    def __init__(self, when: str, held: list[Any]) -> None:
        self.name = f"os.register_at_fork({when})"
        self.held = held


def fork_hooks() -> list[ForkHooks]:
    """The lists that are not empty. To be called in a forked child."""
    hooks = []
    for when in _WHEN:

        def ours() -> None: ...

        os.register_at_fork(**{when: ours})
        holders = [each for each in gc.get_referrers(ours) if type(each) is list and each and each[-1] is ours]
        hooks += [ForkHooks(when, each) for each in holders[:1] if len(each) > 1]
    return hooks
