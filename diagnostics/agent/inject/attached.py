"""The code that runs in an attached service: loads the agent, and unloads it again.

`diagnostics attach` copies the agent into a folder that the service can read, and has the service's main thread run this file
between two of its own instructions. This file only starts a thread, which loads the agent, so that the main thread is not
held up. The result is one line of JSON in the folder's file `told`.

The law of this file: it is run by itself, from that folder, so it imports nothing of the agent at its top, and next to nothing
else. It raises nothing into the service and prints nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["enter", "leave"]

PRIVATE_NAME = "_highwater_diagnostics"
# Modules of Python's own that the agent needs and most services have not loaded. They stay, because the service may import
# them later. Loaded before the agent's modules, they lie together: in between, each would keep an arena of Python's allocator,
# 1 MiB, from being given back.
_PYTHONS_OWN = ("__future__", "ctypes", "_tracemalloc", "importlib.util", "bisect")
_REST_SECONDS = 0.01
_FEW_BLOCKS = 200_000
_SMALL_PAGES = 65536  # 256 MiB


def enter(folder: str, page: int = 0) -> None:
    """On the service's main thread: start the thread that loads the agent.

    page   address of the memory page that the attaching process mapped to call this; it is unmapped. 0: there is none
    """
    _tell(folder, "coming", "")
    try:
        _start_thread(_bring_in, (folder, page))
    except Exception as error:  # noqa: BLE001  # reported to the attaching process only
        _tell(folder, "failed", f"{type(error).__name__}: {error}")


def _start_thread(call: Any, arguments: tuple[Any, ...]) -> None:
    import _signal  # type: ignore[import-not-found]

    faults = {"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP"}
    # Signals of the service must be delivered to its own threads.
    mask = _signal.pthread_sigmask(
        _signal.SIG_BLOCK, _signal.valid_signals() - {getattr(_signal, name) for name in faults}
    )
    try:
        _threads().start_new_thread(call, arguments)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)


def _threads() -> Any:
    """The module `_thread`; where gevent has patched it a second instance: a thread of the patched one is a greenlet."""
    import _thread

    if type(_thread.start_new_thread).__name__ == "builtin_function_or_method":
        return _thread
    from _frozen_importlib import module_from_spec

    spec: Any = _thread.__spec__
    fresh = module_from_spec(spec)
    spec.loader.exec_module(fresh)
    return fresh


class _Gently:
    """Rests before each of the agent's modules is loaded, so that the service runs in between.

    A busy thread keeps the GIL for 5 ms each time, and a loop that writes to twenty sockets needs it again twenty times in
    one round: loaded without a pause, the agent would delay that round by a tenth of a second.
    """

    def __init__(self) -> None:
        self._never = _threads().allocate_lock()
        self._never.acquire()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == PRIVATE_NAME:
            self._never.acquire(True, _REST_SECONDS)


def _bring_in(folder: str, page: int) -> None:
    try:
        if page:
            _give_back(page)
        why = _another_agent()
        if why:
            _tell(folder, "refused", why)
            return
        _tell(folder, "listening", _load(folder))
    except BaseException as error:  # noqa: BLE001  # else Python would print it to the service's standard error
        _tell(folder, "failed", f"{type(error).__name__}: {error}{_unloaded()}")


def _unloaded() -> str:
    """Unload what was loaded; a failure of that is returned, for the report."""
    try:
        _unload()
    except Exception as error:  # noqa: BLE001  # a half-loaded agent
        return f" (and while unloading: {type(error).__name__}: {error})"
    return ""


def _give_back(page: int) -> None:
    from ctypes import CDLL, c_size_t, c_void_p

    CDLL(None).munmap(c_void_p(page), c_size_t(4096))


def _another_agent() -> str:
    """The socket's path of an agent that this process has already; empty where it has none."""
    import sys

    for name in (f"{PRIVATE_NAME}.agent.lifecycle", "diagnostics.agent.lifecycle"):
        lifecycle = sys.modules.get(name)
        if lifecycle is not None and lifecycle.is_running():
            return f"it has an agent, which listens at {lifecycle.listens_at()}"
    if PRIVATE_NAME in sys.modules:
        return "it was started by `diagnostics run`, whose agent starts once the process serves"
    return ""


def _load(folder: str) -> str:
    """Load the agent from `folder` and start it; returns its socket's path. Raises any error of the import or the start."""
    import sys
    from importlib import import_module
    from importlib.util import module_from_spec, spec_from_file_location

    for name in _PYTHONS_OWN:
        import_module(name)
    package = folder + "/diagnostics"
    spec = spec_from_file_location(PRIVATE_NAME, package + "/__init__.py", submodule_search_locations=[package])
    if spec is None or spec.loader is None:
        raise ImportError(f"no package at {package}")
    module = module_from_spec(spec)
    sys.modules[PRIVATE_NAME] = module
    gently: Any = _Gently()
    sys.meta_path.insert(0, gently)
    try:
        spec.loader.exec_module(module)
        import_module(PRIVATE_NAME + ".agent.at_fork").prepare()  # stays as well
        lifecycle = import_module(PRIVATE_NAME + ".agent.lifecycle")
        # Else the first request would load them, while its client waits.
        import_module(PRIVATE_NAME + ".agent.operations.captures")
        import_module(PRIVATE_NAME + ".agent.servers")
        lifecycle.start_attached(folder, leave)
    finally:
        sys.meta_path.remove(gently)
    return str(lifecycle.listens_at())


# Functions of these modules may be queued in a loop or run in a fork under way: they are left to the garbage collector.
_CALLED_LATER = (".agent.loops", ".agent.forked", ".agent.background")


def leave() -> None:
    """On the agent's thread, after its last answer: unload the agent. `diagnostics attach --leave` removes the folder."""
    import sys

    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == PRIVATE_NAME]
    unpatched = sys.modules[PRIVATE_NAME + ".agent.unpatched"]
    _unload()
    _start_thread(_forget, (modules, unpatched.get_native_id()))


def _forget(modules: list[Any], agents_thread: int) -> None:
    """Once the agent's thread has ended: clear its modules, each a reference cycle that would stay until a full collection.

    Classes are cycles by themselves. A small service runs a full collection for them, some 10 ms; a large one collects the
    young generation only, and leaves the rest to its own next collection.
    """
    import gc
    import sys

    if not _has_ended(agents_thread):
        return
    while modules:
        module = modules.pop()
        if not module.__name__.removeprefix(PRIVATE_NAME).startswith(_CALLED_LATER):
            module.__dict__.clear()
    del module
    if gc.isenabled():  # else the service collects when it chooses
        gc.collect(2 if sys.getallocatedblocks() < _FEW_BLOCKS else 1)
    _trim()


def _has_ended(thread: int) -> bool:
    """Wait for the end of a thread, up to 5 s."""
    import os

    never = _threads().allocate_lock()
    never.acquire()
    for _ in range(500):
        if not os.path.exists("/proc/self/task/%d" % thread):  # noqa: UP031
            return True
        never.acquire(True, _REST_SECONDS)
    return False


def _trim() -> None:
    """Return the agent's freed memory to the system (`malloc_trim`): a millisecond in a small service, more in a large one."""
    import sys

    with open("/proc/self/statm", encoding="utf-8") as file:
        resident_pages = int(file.read().split()[1])
    ctypes = sys.modules.get("ctypes")
    if ctypes is not None and resident_pages < _SMALL_PAGES:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
        if trim is not None:
            trim(0)


def _unload() -> None:
    import sys

    at_fork = sys.modules.get(f"{PRIVATE_NAME}.agent.at_fork")
    if at_fork is not None:
        at_fork.let_go(f"{PRIVATE_NAME}.agent")
    package = getattr(sys.modules.get(PRIVATE_NAME), "__path__", ["/nowhere"])[0]
    for path in [each for each in sys.path_importer_cache if each.startswith(package)]:
        del sys.path_importer_cache[path]  # the import system's cache of the folder that will be removed
    for name in [each for each in sys.modules if each.partition(".")[0] == PRIVATE_NAME]:
        del sys.modules[name]


def _tell(folder: str, state: str, what: str) -> None:
    """Write the file `told`. Where that fails, the attaching process times out; there is no other way to report it."""
    import os

    escaped = "".join(each if " " <= each <= "~" and each not in '"\\' else f"\\u{ord(each):04x}" for each in what)
    try:
        with open(folder + "/told.new", "w", encoding="utf-8") as file:
            file.write('{"state": "%s", "what": "%s"}\n' % (state, escaped))  # noqa: UP031
        os.rename(folder + "/told.new", folder + "/told")
    except OSError:
        pass
