"""What runs at a fork, as a root: the interpreter keeps three lists of functions for `os.register_at_fork`, and no object of
Python's refers to them.

Which of all lists they are is found by registering a function of our own, and looking which list has it. That stays for
ever, so it is done in a forked child only, which forks no more and ends without running anything.
"""

from __future__ import annotations

import gc
import os
from typing import Any

__all__ = ["ForkHooks", "fork_hooks"]

_WHEN = ("before", "after_in_parent", "after_in_child")


class ForkHooks:
    """One of the lists, by the word that register_at_fork has for it."""

    __slots__ = ("held", "name")

    def __init__(self, when: str, held: list[Any]) -> None:
        self.name = f"os.register_at_fork({when})"
        self.held = held


def fork_hooks() -> list[ForkHooks]:
    """The lists that have anything in them. To be called in a forked child."""
    found = []
    for when in _WHEN:

        def ours() -> None: ...

        os.register_at_fork(**{when: ours})
        holders = [each for each in gc.get_referrers(ours) if type(each) is list and each and each[-1] is ours]
        found += [ForkHooks(when, each) for each in holders[:1] if len(each) > 1]
    return found
