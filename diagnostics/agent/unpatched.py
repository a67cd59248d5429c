"""Python's original system functions, where gevent or eventlet have patched them.

`monkey.patch_all()` replaces functions of `_thread`, `select`, `time`, `os` and others by ones that switch between
greenlets. An agent that called those would run as a greenlet: only when the service rests, and never while it is stuck. Both
leave the C modules `posix` and `_socket` alone, so the agent uses these directly. `_thread` and `select` are patched: where
their functions are no longer built-in, a second, unpatched instance of the module is made.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["allocate_lock", "get_ident", "get_native_id", "poll", "sleep", "start_new_thread"]


def _built_in(module_name: str, name: str) -> Callable[..., Any]:
    module = import_module(module_name)
    function: Any = getattr(module, name, None)
    if type(function) is type(len):
        return function
    from importlib.util import module_from_spec

    spec = module.__spec__
    if spec is None or spec.loader is None:
        raise ImportError(f"no second instance of {module_name} can be made")
    # Not put into sys.modules: the service keeps its own instance.
    fresh = module_from_spec(spec)
    spec.loader.exec_module(fresh)
    return getattr(fresh, name)  # type: ignore[no-any-return]


start_new_thread = _built_in("_thread", "start_new_thread")
allocate_lock = _built_in("_thread", "allocate_lock")
get_ident = _built_in("_thread", "get_ident")
get_native_id = _built_in("_thread", "get_native_id")
# poll, not select: a service with thousands of streams has descriptors beyond select's 1,024.
poll = _built_in("select", "poll")


def sleep(seconds: float) -> None:
    """`time.sleep` that blocks the thread, not a greenlet."""
    never = allocate_lock()
    never.acquire()
    never.acquire(True, seconds)
