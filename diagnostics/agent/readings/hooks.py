"""What the interpreter keeps to call later, as roots: no Python object refers to it.

    os.register_at_fork   three lists. Each is found by registering a function of our own and searching for the list that holds
                          it. A hook cannot be removed again
    atexit.register       an array in C. `atexit.unregister` compares each function with the one that it is given: ours is equal
                          to none, and so gets to see all of them. Their arguments stay unknown
    signal.signal         an array in C, of which `signal.getsignal` tells

All that is done in a forked child only, which never forks and leaves by `os._exit`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
from typing import Any

__all__ = ["Hooks", "hooks"]

_WHEN = ("before", "after_in_parent", "after_in_child")


class Hooks:
    """What is kept in one place; `name` says where."""

    __slots__ = ("held", "name")

    def __init__(self, name: str, held: Any) -> None:
        self.name = name
        self.held = held


def hooks() -> list[Hooks]:
    """The places that are not empty. To be called in a forked child."""
    return [*_of_fork(), *_of_exit(), *_of_signals()]


def _of_fork() -> list[Hooks]:
    found = []
    for when in _WHEN:

        def ours() -> None: ...

        os.register_at_fork(**{when: ours})
        holders = [each for each in gc.get_referrers(ours) if type(each) is list and each and each[-1] is ours]
        found += [Hooks(f"os.register_at_fork({when})", each) for each in holders[:1] if len(each) > 1]
    return found


class _Witness:
    """Is equal to nothing, and remembers what it was compared with."""

    __slots__ = ("seen",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __eq__(self, other: object) -> bool:
        self.seen.append(other)
        return False

    def __call__(self) -> None: ...


def _of_exit() -> list[Hooks]:
    witness = _Witness()
    # Where a callback's own comparison fails, those that came before it are known.
    with contextlib.suppress(Exception):
        atexit.unregister(witness)
    return [Hooks("atexit.register", witness.seen)] if witness.seen else []


def _of_signals() -> list[Hooks]:
    handlers = ((each, signal.getsignal(each)) for each in sorted(signal.valid_signals()))
    return [
        Hooks(f"handler of {getattr(number, 'name', number)}", handler)
        for number, handler in handlers
        if callable(handler)  # the numbers of SIG_DFL and SIG_IGN are not
    ]
