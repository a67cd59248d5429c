"""Reads a task's coroutine without a segmentation fault.

CPython 3.11 and 3.12 follow a null pointer in `Task.get_coro()` where a task has no coroutine: one that was registered with
asyncio and whose `__init__` never ran (granian's `--task-impl rust`), and on 3.12 one that ended in its first, eager step
(aiohttp starts every connection's task so). 3.13 returns None. Only `coroutine_of` may read a task's coroutine.
"""

from __future__ import annotations

import gc
import sys
from itertools import filterfalse
from operator import methodcaller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["coroutine_of", "is_whole"]

_EAGER_ONES_HAVE_NONE = sys.version_info[:2] == (3, 12)
_done, _asked = methodcaller("done"), methodcaller("get_coro")


def is_whole(task: Any) -> bool:
    """Whether a task's `__init__` has run: else `get_loop`, which is safe to call, raises RuntimeError."""
    try:
        task.get_loop()
    except RuntimeError:
        return False
    return True


def coroutine_of(task: Any) -> Any:
    """The coroutine of a task, also of one that is done; None where it has none."""
    if not is_whole(task):
        return None
    if not _EAGER_ONES_HAVE_NONE:
        return task.get_coro()
    # An eager task may end, on its own thread, between two bytecodes. Between these C functions the GIL is not given away.
    for coroutine in map(_asked, filterfalse(_done, (task,))):
        return coroutine
    # `tp_traverse` skips null pointers, and visits the coroutine before the result.
    return next((each for each in gc.get_referents(task) if hasattr(each, "cr_code") or hasattr(each, "gi_code")), None)
