"""The code that runs in an attached service: loads the agent, and unloads it again.

`diagnostics attach` copies the agent into a folder that the service can read, and has the service's main thread run this file
between two of its own instructions. This file only starts a thread, which loads the agent and then is the agent's, so that the
main thread is not held up. The result is one line of JSON in the folder's file `told`.

The law of this file: it is run by itself, from that folder, so it imports nothing of the agent at its top, and next to nothing
else. It raises nothing into the service and prints nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["enter", "leave"]

PRIVATE_NAME = "_highwater_diagnostics"
# Modules of Python's own that the agent needs and some services have not loaded. They stay, because the service may import
# them later. Loaded before the agent's modules, they lie together: in between, each would keep an arena of Python's allocator,
# 1 MiB, from being given back.
_PYTHONS_OWN = ("__future__", "_tracemalloc", "bisect")
_REST_SECONDS = 0.01
_FEW_BLOCKS = 200_000
_SMALL_PAGES = 65536  # 256 MiB
_PAGE_BYTES = 4096
_FIGURES = "agent.readings.allocation._figures"


# The names of importer.py, which is run by itself as well.
_imports: dict[str, Any] = {}


def enter(folder: str, page: int, imports: dict[str, Any]) -> None:
    """On the service's main thread: start the thread that loads the agent, and is then the agent's.

    page      address of the memory page that the attaching process mapped to call this; it is unmapped. 0: there is none
    imports   the names of importer.py
    """
    _imports.update(imports)
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


def _gently() -> Callable[[], None]:
    """A rest before each of the agent's modules is loaded, so that the service runs in between.

    A busy thread keeps the GIL for 5 ms each time, and a loop that writes to twenty sockets needs it again twenty times in
    one round: loaded without a pause, the agent would delay that round by a tenth of a second.
    """
    never = _threads().allocate_lock()
    never.acquire()

    def rest() -> None:
        never.acquire(True, _REST_SECONDS)

    return rest


def _bring_in(folder: str, page: int) -> None:
    try:
        # First: what the dynamic linker keeps for the extension then lies at the beginning of this thread's arena, and does not
        # keep its later pages from being given back.
        if page:
            _give_back(folder, page)
        why = _another_agent()
        if why:
            _tell(folder, "refused", why)
            return
        serve, path = _load(folder)
        _tell(folder, "listening", path)
    except BaseException as error:  # noqa: BLE001  # else Python would print it to the service's standard error
        _tell(folder, "failed", f"{type(error).__name__}: {error}{_unloaded()}")
        return
    serve()


def _unloaded() -> str:
    """Unload what was loaded; a failure of that is returned, for the report."""
    try:
        _unload()
    except Exception as error:  # noqa: BLE001  # a half-loaded agent
        return f" (and while unloading: {type(error).__name__}: {error})"
    return ""


def _give_back(folder: str, page: int) -> None:
    figures = _figures(folder)
    if figures is not None:
        figures.unmap(page, _PAGE_BYTES)
        return
    from ctypes import CDLL, c_size_t, c_void_p

    CDLL(None).munmap(c_void_p(page), c_size_t(_PAGE_BYTES))


def _figures(folder: str) -> Any:
    """The extension `_figures` of the agent in `folder`; None where it cannot be loaded.

    What it does, `ctypes` does too, but that would add a quarter of a MiB to the service for good.
    """
    import sys
    from _frozen_importlib import module_from_spec
    from _frozen_importlib_external import spec_from_file_location

    name = f"{PRIVATE_NAME}.{_FIGURES}"
    figures = sys.modules.get(name)
    if figures is None:
        spec: Any = spec_from_file_location(name, f"{folder}/diagnostics/{_FIGURES.replace('.', '/')}.abi3.so")
        try:
            figures = module_from_spec(spec)
            spec.loader.exec_module(figures)
        except ImportError:  # built without it, for another C library, or a folder without the right to execute
            return None
    # An older one may be in the process: its file was mapped, by the same name, by an earlier attach.
    return figures if hasattr(figures, "unmap") else None


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


def _load(folder: str) -> tuple[Callable[[], None], str]:
    """Load the agent from `folder`; returns what its thread is to do, and its socket's path.

    Raises any error of the import or the start.
    """
    import sys

    for name in _PYTHONS_OWN:
        __import__(name)
    # Not by Python's own importer: that would look for bytecode, and leave some, where the service's settings say (`-O`,
    # PYTHONPYCACHEPREFIX).
    importer = _imports["Importer"](PRIVATE_NAME, folder + "/diagnostics", _imports["code_of"], _gently())
    importer.import_package()
    # The last two: else the first request would load them, while its client waits.
    for name in ("at_fork", "lifecycle", "operations", "servers"):
        __import__(f"{PRIVATE_NAME}.agent.{name}")
    importer.before = None
    sys.modules[f"{PRIVATE_NAME}.agent.at_fork"].prepare()  # stays as well
    lifecycle = sys.modules[f"{PRIVATE_NAME}.agent.lifecycle"]

    def left() -> None:
        leave(folder)

    return lifecycle.start_attached(folder, left), str(lifecycle.listens_at())


# Functions of these modules may be queued in a loop or run in a fork under way: they are left to the garbage collector.
_CALLED_LATER = (".agent.loops", ".agent.forked", ".agent.background")


def leave(folder: str) -> None:
    """On the agent's thread, after its last answer: unload the agent. `diagnostics attach --detach` removes the folder."""
    import sys

    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == PRIVATE_NAME]
    unpatched = sys.modules[PRIVATE_NAME + ".agent.unpatched"]
    figures = _figures(folder)
    _unload()
    _start_thread(_forget, (modules, unpatched.get_native_id(), figures))


def _forget(modules: list[Any], agents_thread: int, figures: Any) -> None:
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
        if module is not figures and not module.__name__.removeprefix(PRIVATE_NAME).startswith(_CALLED_LATER):
            module.__dict__.clear()
    del module
    if gc.isenabled():  # else the service collects when it chooses
        gc.collect(2 if sys.getallocatedblocks() < _FEW_BLOCKS else 1)
    _trim(figures)


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


def _trim(figures: Any) -> None:
    """Return the agent's freed memory to the system (`malloc_trim`): a millisecond in a small service, more in a large one."""
    import sys

    with open("/proc/self/statm", encoding="utf-8") as file:
        if int(file.read().split()[1]) >= _SMALL_PAGES:
            return
    if figures is not None:
        figures.trim()
        return
    ctypes = sys.modules.get("ctypes")
    trim = None if ctypes is None else getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
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
